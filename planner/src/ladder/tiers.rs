//! The tier of host memory: `tiered-qwen3-32b-16h100.csv`, the same traffic on the GPUs alone and with 200 GiB of host
//! memory in each pod.

use std::fmt::Write as _;
use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::traffic::{Stage, Traffic, stage};
use super::{API_SERVER, Climb, FOLDER, Figures, checked, collapse_offset, mean, rows};
use crate::error::{Error, InputError};
use crate::markers;
use crate::scenario::overrides::Override;

const TABLE: &str = "tiered-qwen3-32b-16h100.csv";

/// The lengths of the stages were not published: these are those that token rates and times add up to.
const STAGES: [Stage; 4] = [stage(5, 200), stage(10, 100), stage(20, 50), stage(40, 50)];

const TRAFFIC: Traffic = Traffic {
    stages: &STAGES,
    groups: 250,
    users_per_group: 5,
    shared_tokens: 16_000,
    own_tokens: 256,
    output_tokens: 256,
};

/// Draws of users and arrivals over which simulated figures are averaged; one was published.
const DRAWS: u64 = 3;

/// What was compared.
#[derive(Debug)]
struct Setting {
    name: &'static str,
    epp: &'static str,
    host_memory: Option<&'static str>,
}

const SETTINGS: [Setting; 2] = [
    Setting { name: "GPUs alone", epp: include_str!("../../ladder/tiers-gpu.yaml"), host_memory: None },
    Setting {
        name: "and host memory",
        epp: include_str!("../../ladder/tiers-cpu.yaml"),
        host_memory: Some("200GiB"),
    },
];

const FLEET: &str = include_str!("../../ladder/fleet.yaml");

/// The columns that are compared: GPUs alone (`hbm`) and with host memory (`tier`).
#[derive(Deserialize)]
struct Row {
    rate: f64,
    hbm_ttft_mean_s: f64,
    tier_ttft_mean_s: f64,
    hbm_total_tok_s: f64,
    tier_total_tok_s: f64,
}

/// GPUs alone and with host memory, as published and as simulated.
#[derive(Clone, Debug)]
pub struct Tiers {
    /// By setting, then by rate.
    pub published: [Vec<Figures>; 2],
    /// By setting, then by rate.
    pub simulated: [Vec<Figures>; 2],
}

impl Tiers {
    /// Simulates both settings.
    ///
    /// # Errors
    /// When the published figures cannot be read.
    pub fn climb(folder: &Path) -> Result<Self, Error> {
        let published = read(&folder.join(FOLDER).join(TABLE))?;
        let runs: Vec<_> =
            SETTINGS.iter().flat_map(|setting| (1..=DRAWS).map(move |draw| (setting, draw))).collect();
        let draws: Result<Vec<_>, Error> =
            runs.par_iter().map(|(setting, draw)| simulate(setting, *draw)).collect();
        let draws = draws?;
        let (alone, tiered) = draws.split_at(DRAWS as usize);
        Ok(Self { published, simulated: [mean(alone), mean(tiered)] })
    }

    /// Simulated over published mean TTFT at `rate`, by setting.
    #[must_use]
    pub fn ttft_ratios(&self, rate: u32) -> [f64; 2] {
        [0, 1].map(|setting| {
            let rung = STAGES.iter().position(|stage| stage.rate == rate);
            let at = |all: &[Vec<Figures>; 2]| rung.map_or(f64::NAN, |rung| all[setting][rung].ttft_mean_s);
            at(&self.simulated) / at(&self.published)
        })
    }

    /// How many rungs later than published the mean TTFT collapses, by setting; none where only one of the two does.
    #[must_use]
    pub fn collapse_offsets(&self) -> [Option<i64>; 2] {
        [0, 1].map(|setting| collapse_offset(&self.published[setting], &self.simulated[setting]))
    }

    /// The report, for `docs/validation.md`.
    #[must_use]
    pub fn report(&self) -> String {
        let [alone, tiered] = &SETTINGS;
        let mut text = format!(
            "| mean TTFT, prompt and output tokens/s: simulated [published] | {} | {} |\n|---|---|---|\n",
            alone.name, tiered.name
        );
        for (rung, stage) in STAGES.iter().enumerate() {
            let cell = |setting: usize| {
                let (simulated, published) = (self.simulated[setting][rung], self.published[setting][rung]);
                format!(
                    "{:.2} s [{:.2}], {:.0} [{:.0}]",
                    simulated.ttft_mean_s,
                    published.ttft_mean_s,
                    simulated.tokens_per_s,
                    published.tokens_per_s
                )
            };
            // A write to a string cannot fail.
            let _ = writeln!(text, "| {} requests/s | {} | {} |", stage.rate, cell(0), cell(1));
        }
        text
    }

    /// Puts the report between the markers of a document.
    ///
    /// # Errors
    /// When the document has no markers, or cannot be written.
    pub fn update(&self, document: &Path) -> Result<(), Error> {
        Ok(markers::replace(document, "forerun validate: tiers", &self.report())?)
    }
}

fn read(path: &Path) -> Result<[Vec<Figures>; 2], InputError> {
    let wrong = |why: String| InputError::new(format!("{}: {why}", path.display()));
    let rows: Vec<Row> = rows(path)?;
    let of = |setting: usize| {
        let figures = rows.iter().map(|row| {
            let (tokens_per_s, ttft_mean_s) = match setting {
                0 => (row.hbm_total_tok_s, row.hbm_ttft_mean_s),
                _ => (row.tier_total_tok_s, row.tier_ttft_mean_s),
            };
            Figures { rate: row.rate, tokens_per_s, ttft_mean_s }
        });
        checked(figures.collect(), &STAGES, SETTINGS[setting].name).map_err(wrong)
    };
    Ok([of(0)?, of(1)?])
}

fn simulate(setting: &Setting, draw: u64) -> Result<Vec<Figures>, Error> {
    let mut overrides = vec![
        Override::new("overhead.api_server", json!(API_SERVER)),
        Override::new("engine.max_model_len", json!(32_768)),
    ];
    overrides.extend(setting.host_memory.map(|bytes| Override::new("tiers.cpu.capacity", json!(bytes))));
    let climb = Climb {
        traffic: &TRAFFIC,
        fleet: FLEET,
        epp: setting.epp,
        draw,
        in_flight_max: None,
        tokens: TRAFFIC.shared_tokens + TRAFFIC.own_tokens + TRAFFIC.output_tokens,
        overrides,
    };
    climb.simulate()
}
