//! How far figures can be trusted: their errors against measured servers, by GPU, type of weights, class of model and kind
//! of step times. `forerun validate --errors` derives them; `planner/servers/errors.json` is what comes with the tool.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use forerun_reports::summary::{Compared, Uncertainty};
use forerun_sim::catalog::{Gpu, Model};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::hardware::{DEFAULT_GPU, DEFAULT_MODEL, find_gpu, find_model};
use crate::markers;
use crate::validate::{StepTimes, Validated};

/// Figures whose errors are told, with their keys in a summary.
pub(crate) const FIGURES: [(&str, &str); 7] = [
    ("TTFT mean", "ttft_ms.mean"),
    ("TTFT p99", "ttft_ms.p99"),
    ("TPOT mean", "tpot_ms.mean"),
    ("TPOT p99", "tpot_ms.p99"),
    ("E2E mean", "e2e_ms.mean"),
    ("E2E p99", "e2e_ms.p99"),
    ("requests/s", "throughput.requests_per_s"),
];

/// A load whose simulated and measured throughput differ by more was at capacity for one of both: latencies there
/// depend on the backlog, and only throughput is compared.
const SAME_THROUGHPUT: f64 = 0.02;

/// Errors against the measured servers of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorModel {
    /// The GPU.
    pub gpu: String,
    /// Type of the weights.
    pub dtype: String,
    /// `dense`, or `mixture of experts`.
    pub model_class: String,
    /// `closed forms` or `tables`.
    pub step_times: String,
    /// Servers that were measured.
    pub servers: u32,
    /// Loads that they were put under.
    pub loads: u32,
    /// Of these, loads at capacity, whose latencies do not count.
    pub at_capacity: u32,
    /// Simulated over measured, minus one: the least and the largest of each figure, by its key in a summary.
    pub errors: BTreeMap<String, [f64; 2]>,
}

static KNOWN: LazyLock<Vec<ErrorModel>> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../servers/errors.json"))
        .expect("the errors that come with the tool are read")
});

/// The error models of validated servers, in the order of their names.
///
/// # Errors
/// When a server's GPU or model is not in the catalog.
pub fn models(all: &[Validated]) -> Result<Vec<ErrorModel>, Error> {
    let mut models: BTreeMap<[String; 4], ErrorModel> = BTreeMap::new();
    for validated in all {
        let scenario = &validated.server.scenario;
        let pool = scenario.pools.as_ref().and_then(|pools| pools.first());
        let gpu = find_gpu(pool.and_then(|pool| pool.gpu.as_deref()).unwrap_or(DEFAULT_GPU))?;
        let name = scenario.model.as_deref().unwrap_or(DEFAULT_MODEL);
        let model = find_model(name, Path::new(""), scenario.dtype)?;
        for times in [StepTimes::ClosedForms, StepTimes::Tables] {
            let simulated: Vec<_> = validated
                .cells
                .iter()
                .filter_map(|cell| {
                    let figures = cell.simulated.iter().find(|(own, _)| *own == times)?;
                    Some((&cell.measured, &figures.1))
                })
                .collect();
            if simulated.is_empty() {
                continue;
            }
            let [dtype, class] = kind(&model);
            let own = ErrorModel::none(&gpu.name, &dtype, &class, times.title());
            let place = [gpu.name.clone(), dtype, class, times.title().to_owned()];
            let entry = models.entry(place).or_insert(own);
            entry.servers += 1;
            for (measured, simulated) in simulated {
                let error = |figure: &str| Some(simulated.get(figure)? / measured.get(figure)? - 1.0);
                entry.add(&error);
            }
        }
    }
    Ok(models.into_values().collect())
}

/// Writes error models as the tool reads them.
///
/// # Errors
/// When the file cannot be written.
pub fn write(models: &[ErrorModel], path: &Path) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(models).map_err(|e| Error::Internal(e.to_string()))?;
    Ok(markers::write(path, &(json + "\n"))?)
}

/// The error models that come with the tool.
#[must_use]
pub fn known() -> &'static [ErrorModel] {
    &KNOWN
}

impl ErrorModel {
    fn none(gpu: &str, dtype: &str, class: &str, step_times: &str) -> Self {
        Self {
            gpu: gpu.to_owned(),
            dtype: dtype.to_owned(),
            model_class: class.to_owned(),
            step_times: step_times.to_owned(),
            servers: 0,
            loads: 0,
            at_capacity: 0,
            errors: BTreeMap::new(),
        }
    }

    /// Whether both are of the same kind and loads, with errors that differ by no more than a tenth of a percent.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let near = |(own, other): (&[f64; 2], &[f64; 2])| {
            own.iter().zip(other).all(|(own, other)| (own - other).abs() <= 1e-3)
        };
        let kind = |model: &Self| {
            let (gpu, dtype) = (model.gpu.clone(), model.dtype.clone());
            (gpu, dtype, model.model_class.clone(), model.step_times.clone(), model.loads, model.at_capacity)
        };
        kind(self) == kind(other)
            && self.errors.keys().eq(other.errors.keys())
            && self.errors.values().zip(other.errors.values()).all(near)
    }

    /// Adds the errors of a load.
    fn add(&mut self, error: &dyn Fn(&str) -> Option<f64>) {
        self.loads += 1;
        let at_capacity = error("requests/s").is_some_and(|error| error.abs() > SAME_THROUGHPUT);
        self.at_capacity += u32::from(at_capacity);
        for (figure, key) in FIGURES.iter().filter(|(figure, _)| !at_capacity || *figure == "requests/s") {
            let Some(error) = error(figure) else { continue };
            // Four decimals of a share are hundredths of a percent.
            let error = (error * 1e4).round() / 1e4;
            widen(self.errors.entry((*key).to_owned()).or_insert([error; 2]), [error; 2]);
        }
    }
}

fn widen(range: &mut [f64; 2], other: [f64; 2]) {
    *range = [range[0].min(other[0]), range[1].max(other[1])];
}

/// Type of weights and class of a model.
fn kind(model: &Model) -> [String; 2] {
    let class = if model.shape.experts.is_some() { "mixture of experts" } else { "dense" };
    [model.shape.weights.linear.to_string(), class.to_owned()]
}

/// What is known of the errors of a pool's figures: of servers of its own kind or, where none was measured, of others.
pub(crate) fn uncertainty(gpu: &Gpu, model: &Model, step_times: &str) -> Option<Uncertainty> {
    let [dtype, class] = kind(model);
    let of_kind = |own: &&ErrorModel| own.step_times == step_times;
    let all: Vec<&ErrorModel> = known().iter().filter(of_kind).collect();
    let on_gpu: Vec<&ErrorModel> = all.iter().copied().filter(|own| own.gpu == gpu.name).collect();
    let alike: Vec<&ErrorModel> =
        on_gpu.iter().copied().filter(|own| own.dtype == dtype && own.model_class == class).collect();
    let (chosen, compared, of) = if !alike.is_empty() {
        (alike, Compared::SameKind, format!("{class} {dtype} models on {}", gpu.name))
    } else if !on_gpu.is_empty() {
        (
            on_gpu,
            Compared::SameGpu,
            format!("other models on {} (none {class} in {dtype} was measured)", gpu.name),
        )
    } else {
        (all, Compared::OtherGpus, format!("other GPUs (nothing on {} was measured: expect more)", gpu.name))
    };
    let first = chosen.first()?;
    let mut errors = first.errors.clone();
    for (key, range) in chosen.iter().flat_map(|own| &own.errors) {
        widen(errors.entry(key.clone()).or_insert(*range), *range);
    }
    let sum = |count: fn(&ErrorModel) -> u32| chosen.iter().map(|own| count(own)).sum::<u32>();
    let (servers, loads) = (sum(|own| own.servers), sum(|own| own.loads));
    let at_capacity = sum(|own| own.at_capacity);
    let words = match at_capacity {
        0 => String::new(),
        loads => format!(", {loads} of them at capacity"),
    };
    let basis = format!(
        "{step_times} against {servers} measured {} of {of}, {loads} {}{words}",
        if servers == 1 { "server" } else { "servers" },
        if loads == 1 { "load" } else { "loads" },
    );
    let told = if at_capacity < loads { loads - at_capacity } else { loads };
    Some(Uncertainty { basis, loads: u64::from(told), errors, compared })
}

/// The key of a figure in a summary.
pub(crate) fn key(figure: &str) -> String {
    let known = FIGURES.iter().find(|(own, _)| *own == figure);
    known.map_or_else(|| figure.to_owned(), |(_, key)| (*key).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_sim::catalog;

    fn of(gpu: &str, model: &str, step_times: &str) -> Uncertainty {
        let (gpu, model) = (catalog::gpu(gpu).unwrap(), catalog::model(model).unwrap());
        uncertainty(gpu, model, step_times).unwrap()
    }

    #[test]
    fn a_measured_kind_has_its_own_errors_and_others_say_that_they_have_not() {
        let own = of("h100-sxm", "Qwen/Qwen3-14B", "closed forms");
        assert!(own.basis.contains("dense bf16 models on h100-sxm"), "{}", own.basis);
        let other = of("b200-sxm", "Qwen/Qwen3-14B", "closed forms");
        assert!(other.basis.contains("nothing on b200-sxm was measured"), "{}", other.basis);
        for (key, [low, high]) in &own.errors {
            let [least, most] = other.errors[key];
            assert!(least <= *low && *high <= most, "{key}: all GPUs together err at least as much as one");
        }
        let tables = of("rtx4090", "meta-llama/Llama-3.1-8B", "tables");
        assert!(tables.errors["e2e_ms.mean"][1] < 0.02, "{tables:?}");
    }

    #[test]
    fn latencies_of_a_load_at_capacity_do_not_count() {
        let mut model = ErrorModel::none("g", "bf16", "dense", "tables");
        let errors = |throughput: f64, e2e: f64| {
            move |figure: &str| match figure {
                "requests/s" => Some(throughput),
                "E2E mean" => Some(e2e),
                _ => None,
            }
        };
        model.add(&errors(0.001, -0.05));
        model.add(&errors(0.1, 4.0));
        assert_eq!((model.loads, model.at_capacity), (2, 1));
        let near = |key: &str, [low, high]: [f64; 2]| {
            let range = model.errors[key];
            assert!((range[0] - low).abs() < 1e-9 && (range[1] - high).abs() < 1e-9, "{key}: {range:?}");
        };
        near("e2e_ms.mean", [-0.05, -0.05]);
        near("throughput.requests_per_s", [0.001, 0.1]);
    }

    #[test]
    fn figures_have_keys_of_the_summary() {
        assert_eq!(key("E2E p99"), "e2e_ms.p99");
        assert_eq!(
            known()
                .iter()
                .flat_map(|own| own.errors.keys())
                .find(|key| !FIGURES.iter().any(|(_, own)| own == key)),
            None
        );
    }
}
