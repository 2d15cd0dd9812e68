//! Prefill and decode on replicas of their own: would that need fewer GPUs than replicas that do both?

use forerun_reports::summary::Summary;

use super::Study;
use super::advice::Gain;
use super::sizes::{Fleets, Sizes, mean};
use crate::error::Error;
use crate::trial::{Setting, Size};
use crate::words::number;

/// What was found of it.
pub(super) struct Apart {
    /// Fleets of no more GPUs that hold, one for each seed, and what they save, where every seed
    /// has one.
    pub pays: Option<(Fleets, Gain)>,
    /// The evidence, one sentence each.
    pub evidence: Vec<String>,
}

impl Apart {
    /// Searches fleets that have no more GPUs than the best one whose replicas do both. One replica cannot be divided.
    pub(super) fn find(study: &Study<'_>, sizes: &Sizes) -> Result<Option<Self>, Error> {
        let base = sizes.best();
        let Some(plain) = base.replicas().filter(|replicas| replicas.iter().all(|count| *count > 1.0)) else {
            return Ok(None);
        };
        let setting = Setting::apart(None, None);
        let bench = &study.bench;
        let found = bench.each(std::slice::from_ref(&setting), bench.seeds.len(), |setting, seed| {
            let place = bench.seeds.iter().position(|own| *own == seed).unwrap_or(0);
            bench.within(setting, seed, plain[place] as u32)
        })?;
        let sizes_apart: Vec<Option<Size>> = found.into_iter().flatten().collect();
        let held = sizes_apart.iter().flatten().count();
        let fleets = Fleets::of(study, &setting, sizes_apart);
        let gain = fleets.saves(base);
        let mut evidence = Vec::new();
        match (&gain, fleets.largest()) {
            (Some(_), Some(largest)) => {
                evidence.push(format!(
                    "prefill and decode apart: {} prefill and {} decode replicas hold the SLO",
                    largest[0], largest[1]
                ));
                let p95 = |figure: fn(&Summary) -> Option<f64>| {
                    let each = [mean(base.summaries(), figure), mean(fleets.summaries(), figure)];
                    each.map(|value| number(value.unwrap_or(f64::NAN)))
                };
                let (ttft, tpot) = (p95(|s| s.ttft_ms.p95), p95(|s| s.tpot_ms.p95));
                evidence.push(format!(
                    "together and apart: TTFT p95 {} and {} ms, TPOT p95 {} and {} ms",
                    ttft[0], ttft[1], tpot[0], tpot[1]
                ));
            }
            _ => evidence.push(format!(
                "prefill and decode apart: no split of as many GPUs holds the SLO with {} of {} seeds: do not disaggregate",
                base.seeds() - held,
                base.seeds()
            )),
        }
        let stalled = mean(base.summaries(), |s| {
            Some(s.latency_ms_by_cause.stalled_by_others_prefill? / s.e2e_ms.mean?)
        });
        if let Some(stalled) = stalled {
            evidence.push(format!("decodes wait for others' prefills {:.0} % of the time", stalled * 100.0));
        }
        Ok(Some(Self { pays: gain.map(|gain| (fleets, gain)), evidence }))
    }
}
