//! Measured and simulated distributions, as cumulative shares over time.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::measured::Samples;
use crate::error::Error;

/// Three panels side by side.
const SIZE: (u32, u32) = (1080, 320);
/// Points of a curve: more cannot be seen.
const POINTS: usize = 100;
/// The axis ends at this share of the longest curve: the last few requests would squeeze all others.
const SHOWN: f64 = 0.995;
/// Measured first; then simulated, by kind of step times.
const COLOURS: [RGBColor; 4] = [BLACK, BLUE, RED, RGBColor(0, 140, 70)];

/// Distributions by name: the measured one first.
pub(crate) type Named<'a> = (&'a str, &'a Samples);

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One chart of a load: panels of TTFT, TPOT and E2E, each with the curves of all distributions.
pub(crate) fn cdfs(title: &str, distributions: &[Named<'_>]) -> Result<String, Error> {
    draw(title, distributions).map_err(|e| Error::Internal(format!("chart of {title}: {e}")))
}

fn draw(title: &str, distributions: &[Named<'_>]) -> Result<String, Box<dyn std::error::Error>> {
    type Metric = (&'static str, fn(&Samples) -> &[f64]);
    let metrics: [Metric; 3] =
        [("TTFT, ms", |s| &s.ttft_ms), ("TPOT, ms", |s| &s.tpot_ms), ("E2E, ms", |s| &s.e2e_ms)];
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let below = root.titled(title, ("sans-serif", 16))?;
        for (panel, (metric, values)) in below.split_evenly((1, metrics.len())).iter().zip(metrics) {
            let curves: Vec<_> =
                distributions.iter().map(|(name, samples)| (*name, values(samples))).collect();
            draw_panel(panel, metric, &curves)?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn draw_panel(
    panel: &Panel<'_>,
    metric: &str,
    curves: &[(&str, &[f64])],
) -> Result<(), Box<dyn std::error::Error>> {
    let shown = |values: &[f64]| values.get((values.len() as f64 * SHOWN) as usize).copied();
    let most = curves.iter().filter_map(|(_, values)| shown(values)).fold(1e-3, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..most * 1.02, 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc(metric)
        .y_desc("share of requests")
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|ms| format!("{ms:.0}"))
        .max_light_lines(0)
        .draw()?;
    for (&(name, values), colour) in curves.iter().zip(COLOURS).filter(|((_, values), _)| !values.is_empty())
    {
        let last = values.len() - 1;
        let point = |step: usize| {
            let place = last * step / POINTS;
            (values[place].min(most * 1.02), (place + 1) as f64 / values.len() as f64)
        };
        chart
            .draw_series(LineSeries::new((0..=POINTS).map(point), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
