//! Output rate and mean TTFT by request rate: published as points, simulated as lines.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{Ladder, POLICIES};
use crate::error::Error;
use crate::ladder::Figures;

/// Two panels for each reading, side by side.
const SIZE: (u32, u32) = (1080, 720);
/// By policy.
const COLOURS: [RGBColor; 4] = [BLUE, RGBColor(0, 140, 70), RED, RGBColor(150, 90, 0)];

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failure = Box<dyn std::error::Error>;

/// The chart, an SVG.
pub(super) fn ladder(ladder: &Ladder) -> Result<String, Error> {
    draw(ladder).map_err(|e| Error::Internal(format!("chart of the ladder: {e}")))
}

fn draw(ladder: &Ladder) -> Result<String, Failure> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        for (climbed, row) in ladder.climbed.iter().zip(root.split_evenly((ladder.climbed.len(), 1))) {
            let title = format!("Reading: {}. Lines: simulated; dots: published", climbed.reading.name);
            let row = row.titled(&title, ("sans-serif", 16))?;
            let panels = row.split_evenly((1, 2));
            panel(&panels[0], "output tokens/s", &ladder.published, &climbed.simulated, |at| {
                at.tokens_per_s
            })?;
            panel(&panels[1], "mean TTFT, s", &ladder.published, &climbed.simulated, |at| at.ttft_mean_s)?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn panel(
    panel: &Panel<'_>,
    name: &str,
    published: &[Vec<Figures>],
    simulated: &[Vec<Figures>],
    figure: fn(&Figures) -> f64,
) -> Result<(), Failure> {
    let all = || published.iter().chain(simulated).flatten();
    let most = all().map(figure).fold(0.0, f64::max);
    let fastest = all().map(|at| at.rate).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..fastest * 1.02, 0.0..most * 1.05)?;
    chart.configure_mesh().x_desc("requests/s").y_desc(name).max_light_lines(0).draw()?;
    for (number, colour) in COLOURS.iter().enumerate() {
        let points = |figures: &[Figures]| figures.iter().map(|at| (at.rate, figure(at))).collect::<Vec<_>>();
        chart
            .draw_series(LineSeries::new(points(&simulated[number]), colour.stroke_width(2)))?
            .label(POLICIES[number].name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
        chart.draw_series(
            points(&published[number]).into_iter().map(|at| Circle::new(at, 4, colour.filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
