//! What was found, for people.

use std::fmt::Write as _;
use std::path::Path;

use forerun_profiles::measured::{Check, Measured, typical};
use forerun_profiles::profile::Profile;

/// The report of a profile that was written to `path`.
pub(crate) fn text(profile: &Profile, path: &Path) -> String {
    let mut out = String::new();
    let Some(measured) = &profile.measured else { return out };
    let mut line = |text: String| {
        // Writing into a string does not fail.
        let _ = writeln!(out, "{text}");
    };
    device(profile, measured).into_iter().for_each(&mut line);
    line(String::new());
    line("Whose times these are".to_owned());
    sources(profile).into_iter().for_each(&mut line);
    line(String::new());
    line(format!("{:22} {:>6} {:>8} {:>8}", "Error at sizes held out", "sizes", "median", "largest"));
    for residual in &measured.residuals {
        let (median, largest) = (percent(residual.median), percent(residual.largest));
        line(format!("  {:21} {:>6} {median:>8} {largest:>8}", residual.op, residual.sizes));
    }
    if let Some(check) = &measured.check {
        line(String::new());
        checked(check).into_iter().for_each(&mut line);
    }
    line(String::new());
    line(format!("{}: use it with `profile: {}` in a scenario, or", path.display(), path.display()));
    line(format!("  forerun simulate --set profile={} --set model={}", path.display(), profile.model));
    out
}

fn device(profile: &Profile, measured: &Measured) -> Vec<String> {
    let (device, ceiling) = (&measured.device, &measured.ceiling);
    let threads = if device.threads > 0 { format!(", threads: {}", device.threads) } else { String::new() };
    let driver = device.driver.as_ref().map_or_else(String::new, |driver| format!(", {driver}"));
    let rounds = measured.samples.iter().map(|sample| sample.us.len());
    let (least, most) = (rounds.clone().min().unwrap_or(0), rounds.max().unwrap_or(0));
    let gb = |bytes: f64| format!("{:.3} GB/s", bytes / 1e9);
    let mut lines = vec![
        format!(
            "{}{threads}{driver}, {}, {} bits, shapes of {}",
            device.name,
            device.clock,
            measured.element_bytes * 8,
            profile.model
        ),
        format!("{} sizes in {least} to {most} rounds", measured.samples.len()),
        String::new(),
        "Ceilings of the device".to_owned(),
        format!("  {:24} {:.3} TFLOP/s", "products", ceiling.flops / 1e12),
        format!("  {:24} {}", "memory", gb(ceiling.memory_bytes_per_s)),
        format!(
            "  {:24} launch {:.1} us, {} of FLOP/s, {} of bandwidth, p {:.2}; error {}",
            "form of products",
            ceiling.gemm.launch_us,
            percent(ceiling.gemm.compute_efficiency),
            percent(ceiling.gemm.bandwidth_efficiency),
            ceiling.gemm.smoothness,
            percent(ceiling.gemm_error)
        ),
    ];
    let rates = [
        ("host to device", ceiling.to_device_bytes_per_s),
        ("device to host", ceiling.to_host_bytes_per_s),
        ("disk", ceiling.disk_bytes_per_s),
    ];
    lines.extend(ceiling.launch_us.map(|us| format!("  {:24} {us:.2} us", "launch of a kernel")));
    lines.extend(rates.iter().filter_map(|(name, rate)| Some(format!("  {name:24} {}", gb((*rate)?)))));
    lines.extend(measured.skipped.iter().map(|skipped| format!("  not measured: {skipped}")));
    lines
}

/// Where each table comes from, tables of one source together.
fn sources(profile: &Profile) -> Vec<String> {
    let ops = [&profile.per_layer, &profile.per_step, &profile.per_sequence].into_iter().flatten();
    let attention = ("attention", profile.attention.from.as_deref());
    let mut by_source: Vec<(&str, Vec<&str>)> = Vec::new();
    for (op, from) in ops.map(|op| (op.op.as_str(), op.from.as_deref())).chain([attention]) {
        let from = from.unwrap_or(&profile.source);
        match by_source.iter_mut().find(|(known, _)| *known == from) {
            Some((_, ops)) => ops.push(op),
            None => by_source.push((from, vec![op])),
        }
    }
    let mut lines = vec![format!("  kernels of {}", profile.engine)];
    lines.extend(by_source.iter().map(|(from, ops)| format!("  {from}: {}", ops.join(", "))));
    if profile.tensor_parallel > 1 {
        lines.push("  the catalog's figures for this GPU: all-reduce".to_owned());
    }
    lines
}

fn checked(check: &Check) -> Vec<String> {
    let mut lines = vec![format!(
        "A real transformer of {} layers; its kernels, times {:.3}, predict",
        check.layers, check.scale
    )];
    for step in &check.steps {
        let prefills = step.prefills.iter().map(|[tokens, past]| format!("{tokens} after {past}"));
        let decodes = (!step.decodes.is_empty()).then(|| {
            let tokens: u64 = step.decodes.iter().map(|&length| u64::from(length)).sum();
            format!("{} decodes over {tokens}", step.decodes.len())
        });
        let what: Vec<String> = prefills.chain(decodes).collect();
        let us = typical(&step.us).unwrap_or(f64::NAN);
        let held_out = if step.held_out { "" } else { " (scale)" };
        lines.push(format!(
            "  {:44} {:>9.2} ms, predicted {:>9.2} ms {:>7}{held_out}",
            what.join(", "),
            us / 1e3,
            step.predicted_us / 1e3,
            signed(step.predicted_us / us - 1.0)
        ));
    }
    let errors = check.errors();
    let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    lines.push(format!("  mean error of the {} steps held out: {}", errors.len(), percent(mean)));
    if let Some(serving) = &check.serving {
        lines.push(format!("{} requests served by it, and simulated", serving.requests));
        for (name, [measured, simulated]) in &serving.seconds {
            let error = signed(simulated / measured - 1.0);
            lines.push(format!("  {name:24} {measured:>9.3} s, simulated {simulated:>9.3} s {error:>7}"));
        }
    }
    lines
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn signed(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}
