//! `forerun-calibrate`: times candle's kernels on a device and writes what it found as a profile.
//!
//! ```text
//! device, model -> [plan]: every kernel over a sweep of sizes, and whole steps of a real transformer
//!               -> [rounds]: all of them, round after round, until the time is up   ([bench] calls, [journal] keeps)
//!               -> [outcome]: tables and ceilings; the steps and a served workload compared with what they predict
//!               -> [report], and the profile's file
//! ```

mod args;
mod bench;
mod clock;
mod device;
mod journal;
mod layers;
mod outcome;
mod plan;
mod report;
mod rounds;
mod serving;
mod transformer;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use forerun_profiles::profile::Profile;

use args::{Args, Subject, slug};
use bench::Bench;
use device::{Target, first_line};
use journal::{Header, Journal};
use transformer::Transformer;

/// Wrong input, or a device that fails: as `forerun` ends then.
const WRONG_INPUT: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    match with_threads(&args).and_then(|()| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forerun-calibrate: {error:#}");
            ExitCode::from(WRONG_INPUT)
        }
    }
}

/// candle reads the number of its threads from the environment when it starts: where that is another, this program
/// becomes itself with the right one.
#[cfg(unix)]
fn with_threads(args: &Args) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    let threads = args.threads.max(1).to_string();
    let names = ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS"];
    if args.device != "cpu"
        || names.iter().all(|name| std::env::var(name).is_ok_and(|value| value == threads))
    {
        return Ok(());
    }
    let mut own = std::process::Command::new(std::env::current_exe()?);
    let failed =
        own.args(std::env::args_os().skip(1)).envs(names.map(|name| (name, threads.as_str()))).exec();
    Err(failed).context("cannot start itself again with another number of threads")
}

#[cfg(not(unix))]
fn with_threads(_: &Args) -> anyhow::Result<()> {
    Ok(())
}

fn run(args: &Args) -> anyhow::Result<()> {
    let target = Target::open(&args.device, args.threads.max(1))?;
    let subject = args.subject(&target)?;
    target.check(subject.dtype)?;
    let gpu = subject.known_gpu.map_or_else(|| slug(&target.name), |gpu| gpu.name.clone());
    let path = args.output(&gpu, &subject.model);
    check_writable(&path)?;
    let steps = plan::steps(&subject);
    let capacity = plan::capacity(&subject, &steps);
    let transformer =
        Transformer::new(&subject, &target.device, target.memory_bytes, plan::SLOTS, capacity, steps.clone());
    let transformer = transformer.map_err(first_line).with_context(|| {
        format!("{} cannot hold {}: take a smaller --model or --max-context", target.name, subject.model.name)
    })?;
    let bench = Bench::new(&target, &subject, args.disk.as_deref(), transformer)?;
    let points = plan::points(&target, &subject, &bench, steps.len());
    let beside = path.with_extension("journal");
    let (mut journal, known) = Journal::open(&beside, &header(&target, &subject), args.restart)?;
    if !known.is_empty() {
        eprintln!("continuing with {} times of {}", known.len(), beside.display());
    }
    let timed = rounds::measure(&target, &bench, &points, args.budget, &known, &mut journal)?;
    let measured = outcome::Measurement {
        target: &target,
        subject: &subject,
        gpu: &gpu,
        points: &points,
        timed: &timed,
    };
    let profile = outcome::profile(&measured, &bench.transformer, &steps, args.budget)?;
    write(&path, &profile)?;
    journal.remove()?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(report::text(&profile, &path).as_bytes())?;
    Ok(stdout.flush()?)
}

fn header(target: &Target, subject: &Subject) -> Header {
    let device = target.describe();
    Header {
        journal: format!("forerun-calibrate/1 candle {}", device::CANDLE),
        device: device.name,
        clock: device.clock,
        model: subject.model.name.clone(),
        dtype: subject.dtype.as_str().into(),
        tensor_parallel: subject.tensor_parallel,
        most: [subject.max_tokens, subject.max_context],
    }
}

/// Minutes of measuring are not to end in a folder that does not exist.
fn check_writable(path: &Path) -> anyhow::Result<()> {
    let failed = || format!("{}: cannot be written", path.display());
    anyhow::ensure!(!path.is_dir(), "{}: is a folder: name a file in it with --output", path.display());
    tempfile::tempfile_in(folder(path)).map(drop).with_context(failed)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Written beside its place and renamed into it.
fn write(path: &Path, profile: &Profile) -> anyhow::Result<()> {
    let failed = || format!("{}: cannot be written", path.display());
    let mut file =
        tempfile::Builder::new().prefix(".forerun-").tempfile_in(folder(path)).with_context(failed)?;
    file.write_all(profile.to_json().as_bytes()).with_context(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).with_context(failed)?;
    }
    file.persist(path).map(drop).with_context(failed)
}
