//! The `forerun` command: parses, calls, prints. What it prints comes from the planner.

mod advise;
mod calibrate;
mod calibrate_run;
mod catalog;
mod compare;
mod emit;
mod explain;
mod gate;
mod lint;
mod output;
mod plan;
mod progress;
mod route;
mod scenario;
mod schema;
mod simulate;
mod trace;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use forerun_planner::error::Error;

/// Exit codes, as documented: something that was asked for does not hold; wrong input; a bug.
const NOT_HELD: u8 = 1;
const WRONG_INPUT: u8 = 2;
const BUG: u8 = 3;
/// 128 + SIGINT, as shells report it.
const INTERRUPTED: u8 = 130;

/// Runs your traffic before your GPUs do: a simulator and capacity planner for LLM serving with vLLM.
#[derive(Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Which of llm-d's features would pay for this traffic, or is one vLLM the right answer?
    Advise(Box<advise::Args>),
    /// The cheapest fleet that holds the SLO: GPUs, splits, replicas, prefill and decode, routing.
    Plan(Box<plan::Args>),
    /// What happens, exactly, in one scenario?
    Simulate(Box<simulate::Args>),
    /// Which variant is better on the same traffic, and is the difference real?
    Compare(Box<compare::Args>),
    /// Did this change make anything worse? An exit code for CI.
    Gate(Box<gate::Args>),
    /// Make the cost model true for a GPU: kernels timed here, profiles from measured tables, constants fitted to them.
    Calibrate(calibrate::Args),
    /// Traces: what is in one?
    Trace(trace::Args),
    /// What does a router configuration do that its author may not expect?
    Lint(lint::Args),
    /// Where does a router configuration send a request, and why?
    Route(route::Args),
    /// What can a scenario name? GPUs, models, workload presets, routing policies.
    Catalog(catalog::Args),
    /// Where does a figure come from? One step's time, op by op.
    Explain(explain::Args),
    /// How near do the figures come to measured servers?
    Validate(validate::Args),
    /// The JSON Schema of a file format.
    Schema(schema::Args),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let result = std::panic::catch_unwind(|| match command {
        Command::Advise(args) => advise::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Gate(args) => gate::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Route(args) => route::run(&args),
        Command::Catalog(args) => catalog::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Schema(args) => schema::run(&args),
    });
    match result {
        Ok(result) => result.unwrap_or_else(|error| report(&error)),
        // What broke, and where, is on stderr already.
        Err(_) => bug(),
    }
}

fn bug() -> ExitCode {
    eprintln!(
        "This is a bug of Forerun: please report it with the scenario, the seed and `forerun --version`."
    );
    ExitCode::from(BUG)
}

/// Tells the user what went wrong, and the shell by which code.
fn report(error: &anyhow::Error) -> ExitCode {
    if output::is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    match error.downcast_ref::<Error>() {
        Some(Error::Interrupted) => {
            eprintln!("forerun: {error}");
            ExitCode::from(INTERRUPTED)
        }
        Some(Error::Internal(_)) => {
            eprintln!("forerun: {error}");
            bug()
        }
        Some(Error::Input(_)) | None => {
            eprintln!("forerun: {error:#}");
            ExitCode::from(WRONG_INPUT)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
