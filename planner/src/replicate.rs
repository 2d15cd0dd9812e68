//! Many runs at once: replications of one scenario, or of several variants. Runs are in parallel, what happens in each
//! of them is not, so that results are the same whatever the number of threads.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use forerun_reports::replications::Replications;
use forerun_reports::summary::Summary;
use forerun_sim::rng::Stream;
use rayon::iter::{IndexedParallelIterator as _, IntoParallelIterator as _, ParallelIterator as _};

use crate::assemble::Assembled;
use crate::error::Error;
use crate::simulate::{Progress, run_once};

/// How far a set of runs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunsProgress {
    /// Runs that are done.
    pub done: usize,
    /// Runs in all.
    pub runs: usize,
    /// Requests that have ended, in all runs.
    pub ended: u64,
}

/// Is told how far the runs are, from several threads, and stops them all by breaking.
pub type WatchRuns<'a> = &'a (dyn Fn(RunsProgress) -> ControlFlow<()> + Sync);

/// The seeds of `count` replications: `seed` itself, then draws from its stream "replications". More replications keep
/// the seeds of fewer. Below 2^53, so that every JSON reader keeps them.
#[must_use]
pub fn seeds(seed: u64, count: u32) -> Vec<u64> {
    let mut stream = Stream::new(seed, "replications");
    let derived = (1..count).map(|_| stream.bits() >> 11);
    std::iter::once(seed).chain(derived).collect()
}

/// Runs `assembled` as often as it says. The summary is that of the first replication, and says of all of them what
/// each figure is on average. `outcomes` are those of the first.
///
/// # Errors
/// As those of a single run; the first of them, in the order of replications.
pub fn replicate(
    assembled: &Assembled,
    outcomes: Option<&Path>,
    watch: WatchRuns<'_>,
) -> Result<Summary, Error> {
    let seeds = seeds(assembled.seed, assembled.replications.unwrap_or(1));
    let summaries = in_parallel(seeds.len(), watch, |index, progress| {
        let outcomes = outcomes.filter(|_| index == 0);
        run_once(assembled, seeds[index], outcomes, &mut (), progress)
    })?;
    let replications = (summaries.len() > 1).then(|| Replications::of(&summaries));
    let first = summaries.into_iter().next();
    let mut first = first.ok_or_else(|| Error::Internal("no replication was run".into()))?;
    first.replications = replications;
    Ok(first)
}

/// The results of `run` for 0, 1 and so on up to `runs`, in that order.
///
/// # Errors
/// The first error, in that order.
pub(crate) fn in_parallel<T: Send>(
    runs: usize,
    watch: WatchRuns<'_>,
    run: impl Fn(usize, &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let (done, ended, stopped) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let one = |index| {
        let mut counted = 0;
        let mut progress = |now: Progress| {
            let before = ended.fetch_add(now.ended - counted, Ordering::Relaxed);
            let all_ended = before + now.ended - counted;
            counted = now.ended;
            let all = RunsProgress { done: done.load(Ordering::Relaxed), runs, ended: all_ended };
            if stopped.load(Ordering::Relaxed) || watch(all).is_break() {
                stopped.store(true, Ordering::Relaxed);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        if stopped.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        let result = run(index, &mut progress);
        done.fetch_add(1, Ordering::Relaxed);
        result
    };
    if runs == 1 {
        // No threads for a single run.
        return Ok(vec![one(0)?]);
    }
    // Runs are long: each may move to an idle thread by itself.
    let results: Vec<Result<T, Error>> = (0..runs).into_par_iter().with_max_len(1).map(one).collect();
    results.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assemble::assemble;
    use crate::scenario::read::{Loaded, parse};

    const SMALL: &str = "
workload: {preset: azure-conv, rate: 20, requests: 200}
router: {preset: random}
pools: [{replicas: 2}]
run: {replications: 5, seed: 3}
";

    fn small(text: &str) -> Assembled {
        let scenario = parse(text, &[]).unwrap();
        assemble(&Loaded { scenario, base: "".into(), name: "test".into() }).unwrap()
    }

    fn carry_on(_: RunsProgress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn more_replications_keep_the_seeds_of_fewer() {
        let many = seeds(7, 100);
        assert_eq!(many[0], 7);
        assert_eq!(many[..4], seeds(7, 4));
        let distinct: std::collections::BTreeSet<_> = many.iter().chain(&seeds(8, 100)).copied().collect();
        assert_eq!(distinct.len(), 200);
        assert!(many.iter().all(|&seed| seed < 1 << 53));
    }

    #[test]
    fn the_first_replication_is_the_single_run() {
        let assembled = small(SMALL);
        let mut all = replicate(&assembled, None, &carry_on).unwrap().without_wall();
        let replications = all.replications.take().unwrap();
        let single = crate::simulate::simulate(&assembled, None, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(all, single.without_wall());
        assert_eq!(replications.seeds, seeds(3, 5));
        let ttft = &replications.figures["ttft_mean_ms"];
        assert!(ttft.count == 5 && ttft.deviation > 0.0, "seeds are draws of their own");
        let last = Assembled { seed: replications.seeds[4], replications: None, ..small(SMALL) };
        let last = replicate(&last, None, &carry_on).unwrap();
        assert!(last.replications.is_none());
        let ttft_mean = last.ttft_ms.mean.unwrap();
        assert!(ttft.min <= ttft_mean && ttft_mean <= ttft.max);
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let assembled = small(SMALL);
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| replicate(&assembled, None, &carry_on).unwrap().without_wall().to_json())
        };
        assert_eq!(with_threads(1), with_threads(4));
    }

    #[test]
    fn the_first_error_in_order_is_told_whichever_came_first() {
        let result = in_parallel(8, &carry_on, |index, _| match index {
            3 => {
                std::thread::yield_now();
                Err(Error::Internal("three".into()))
            }
            7 => Err(Error::Internal("seven".into())),
            index => Ok(index),
        });
        assert_eq!(result.unwrap_err().to_string(), "internal error: three");
    }

    #[test]
    fn breaking_stops_all_runs_and_progress_counts_over_all_of_them() {
        let assembled = small(&SMALL.replace("requests: 200", "requests: 3000"));
        let stop = |_: RunsProgress| ControlFlow::Break(());
        assert!(matches!(replicate(&assembled, None, &stop), Err(Error::Interrupted)));
        let most = AtomicU64::new(0);
        let watch = |now: RunsProgress| {
            assert_eq!(now.runs, 5);
            most.fetch_max(now.ended, Ordering::Relaxed);
            ControlFlow::Continue(())
        };
        replicate(&assembled, None, &watch).unwrap();
        assert!(most.load(Ordering::Relaxed) > 2 * 3000, "{most:?}");
    }
}
