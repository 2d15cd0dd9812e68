//! The progress bar of runs: how many are done, requests, requests per second. None when output is piped.

use std::fmt::Write;
use std::io::IsTerminal as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forerun_planner::replicate::{RunsProgress, WatchRuns};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// A progress bar that also notices Ctrl-C.
pub(crate) struct Bar {
    bar: ProgressBar,
    interrupted: Arc<AtomicBool>,
}

impl Bar {
    /// What `run` finds, under a bar for runs of so many requests together, if that is known.
    pub(crate) fn during<R>(requests: Option<u64>, run: impl FnOnce(WatchRuns<'_>) -> R) -> R {
        let bar = Self::new(requests);
        let result = run(&|progress| bar.show(progress));
        bar.clear();
        result
    }

    /// A bar for runs of so many requests together, if that is known.
    fn new(requests: Option<u64>) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(requests, target);
        let template = match requests {
            Some(_) => "{msg}{wide_bar:.cyan/dim} {human_pos}/{human_len} {rate} eta {eta}",
            None => "{msg}{spinner} {human_pos} requests {rate}",
        };
        let rate = |state: &ProgressState, out: &mut dyn Write| {
            // A progress bar that cannot be drawn is no reason to stop.
            let _ = write!(out, "{} req/s", HumanCount(state.per_sec() as u64));
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("rate", rate));
        // Fast runs end before a bar would help.
        bar.enable_steady_tick(Duration::from_millis(200));
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        // Without a handler Ctrl-C still ends the process, if less cleanly.
        let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
        Self { bar, interrupted }
    }

    /// Shows how far the runs are; breaks after Ctrl-C. Several threads may call it.
    fn show(&self, progress: RunsProgress) -> ControlFlow<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            self.bar.finish_and_clear();
            return ControlFlow::Break(());
        }
        self.bar.set_position(progress.ended);
        if progress.runs > 1 {
            self.bar.set_message(format!("{}/{} runs ", progress.done, progress.runs));
        }
        ControlFlow::Continue(())
    }

    /// Removes the bar.
    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
