//! What scenarios can name: GPUs, models, workload presets, routing policies.

use forerun_policies::PRESETS;
use forerun_reports::document::{Block, Cell, Column, Document, KeyValue, Table};
use forerun_sim::catalog::{gpus, models};
use forerun_workloads::preset::{self, PresetInfo};
use serde_json::{Value, json};

use crate::error::Error;

/// The workload presets. They are part of the program: a wrong one is a bug.
fn presets() -> Result<Vec<PresetInfo>, Error> {
    preset::list().map_err(|e| Error::Internal(e.to_string()))
}

/// The catalog for people.
///
/// # Errors
/// When a preset is broken, which is a bug.
pub fn document() -> Result<Document, Error> {
    let gpu_rows = gpus().iter().map(|gpu| {
        vec![
            Cell::text(&gpu.name),
            Cell::number(Some(gpu.memory_gib), "GiB"),
            Cell::number(Some(gpu.memory_bytes_per_s / 1e12), "TB/s"),
            Cell::number(Some(gpu.peak_bf16_flops / 1e12), "TFLOP/s"),
            Cell::number(gpu.price.as_ref().map(|price| price.usd_per_gpu_hour), "USD"),
            Cell::text(gpu.grade.to_string()),
        ]
    });
    let model_rows = models().iter().map(|model| {
        vec![
            Cell::text(&model.name),
            Cell::number(Some(model.parameters() as f64 / 1e9), "B"),
            Cell::number(Some(model.weight_bytes() / f64::from(1 << 30)), "GiB"),
            Cell::number(Some(model.kv_bytes_per_token(1, 2) as f64 / 1024.0), "KiB"),
            Cell::count(u64::from(model.shape.max_model_len), ""),
        ]
    });
    let preset_rows = presets()?.into_iter().map(|preset| named(preset.name, &preset.about));
    let policy_rows = PRESETS.iter().map(|preset| named(preset.name, preset.about));
    Ok(Document {
        title: "Catalog".into(),
        subtitle: "names for `gpu`, `model`, `workload.preset` and `router.preset`; --format json has every constant's source".into(),
        blocks: vec![
            table("GPUs", &["", "memory", "bandwidth", "bf16 peak", "list price/h", "grade"], gpu_rows.collect()),
            table("Models", &["", "parameters", "weights", "KV/token", "longest"], model_rows.collect()),
            Block::Heading("Workload presets".into()),
            Block::KeyValues(preset_rows.collect()),
            Block::Heading("Routing policies".into()),
            Block::KeyValues(policy_rows.collect()),
        ],
    })
}

/// The catalog for machines.
///
/// # Errors
/// When a preset is broken, which is a bug.
pub fn json() -> Result<Value, Error> {
    let gpus = gpus();
    let models = models().iter().map(|model| {
        json!({
            "name": model.name, "aliases": model.aliases, "title": model.title, "source": model.source,
            "parameters": model.parameters(), "kv_bytes_per_token": model.kv_bytes_per_token(1, 2),
            "max_model_len": model.shape.max_model_len, "weight_bytes": model.weight_bytes(),
            "weights": {
                "linear": model.shape.weights.linear.to_string(), "experts": model.shape.weights.experts.to_string(),
            },
        })
    });
    let presets = presets()?
        .into_iter()
        .map(|preset| json!({"name": preset.name, "about": preset.about, "source": preset.source}));
    let policies = PRESETS.iter().map(|preset| json!({"name": preset.name, "about": preset.about}));
    Ok(json!({
        "schema": "forerun/catalog/v1",
        "gpus": gpus,
        "models": models.collect::<Vec<_>>(),
        "presets": presets.collect::<Vec<_>>(),
        "policies": policies.collect::<Vec<_>>(),
    }))
}

fn table(title: &str, columns: &[&str], rows: Vec<Vec<Cell>>) -> Block {
    let column =
        |(index, name): (usize, &&str)| if index == 0 { Column::text(name) } else { Column::figures(name) };
    let columns = columns.iter().enumerate().map(column).collect();
    Block::Table(Table { title: title.into(), columns, rows })
}

fn named(name: &str, about: &str) -> KeyValue {
    KeyValue::new(name, vec![Cell::text(about)])
}
