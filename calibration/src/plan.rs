//! What is timed: every kernel over a sweep of sizes, smallest first, some sizes held out to judge the tables by; and
//! whole steps.

use forerun_profiles::measured::{
    COPY, DECODE_ATTENTION, DISK, LAUNCH, PREFILL_ATTENTION, TO_DEVICE, TO_HOST,
};

use crate::args::Subject;
use crate::bench::{Bench, DISK_BYTES, Kernel, copy_bytes};
use crate::device::{Kind, Target};
use crate::layers::Dimensions;
use crate::transformer::Chunk;

/// The op under which steps are journalled.
pub(crate) const STEP: &str = "step";
/// Caches of the real transformer, and the longest context in them.
pub(crate) const SLOTS: usize = 12;
const CONTEXT_MAX: u32 = 1024;
const SERVED_MAX: u32 = 512;

/// One thing to time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) op: &'static str,
    pub(crate) kernel: Kernel,
    pub(crate) at: [u32; 2],
    pub(crate) held_out: bool,
    /// In proportion to which its time grows within the op, at most.
    pub(crate) work: f64,
}

/// Points of a sweep: powers of two and what lies in the middle between them, up to `most`.
fn sweep(most: u32) -> Vec<u32> {
    let octaves = (0..31).flat_map(|power| {
        let low = 1u32 << power;
        [Some(low), (power > 0).then_some(low + low / 2)].into_iter().flatten()
    });
    let mut sizes: Vec<u32> = octaves.take_while(|&size| size < most).collect();
    sizes.push(most);
    sizes
}

/// Sizes between those of a sweep.
fn between(most: u32) -> Vec<u32> {
    (0..).map(|power| 5u32 << power).step_by(2).take_while(|&size| size < most).collect()
}

/// A coarser sweep along an axis of attention.
fn quarters(least: u32, most: u32) -> Vec<u32> {
    let mut sizes: Vec<u32> =
        std::iter::successors(Some(least), |size| Some(size * 2)).take_while(|&size| size < most).collect();
    sizes.push(most);
    sizes
}

/// Everything to be timed of `subject`, kernel by kernel.
pub(crate) fn points(target: &Target, subject: &Subject, bench: &Bench, steps: usize) -> Vec<Point> {
    let dimensions = Dimensions::new(&subject.model, subject.tensor_parallel);
    let mut points = Vec::new();
    let mut swept = |op, kernel, most: u32| {
        let point =
            |held_out| move |size| Point { op, kernel, at: [size, 0], held_out, work: f64::from(size) };
        let mut all: Vec<Point> = sweep(most).into_iter().map(point(false)).collect();
        all.extend(between(most).into_iter().map(point(true)));
        all.sort_by_key(|point| point.at);
        points.extend(all);
    };
    for (index, (op, ..)) in dimensions.products().into_iter().enumerate() {
        let most = if op == "lm_head" { subject.max_sequences } else { subject.max_tokens };
        swept(op, Kernel::Product(index), most);
    }
    swept("embedding", Kernel::Embedding, subject.max_tokens);
    swept("norms", Kernel::Norms, subject.max_tokens);
    swept("rope", Kernel::Rope, subject.max_tokens);
    swept("activation", Kernel::Activation, subject.max_tokens);
    swept("final norm", Kernel::FinalNorm, subject.max_sequences);
    swept("sampler", Kernel::Sampler, subject.max_sequences);
    points.extend(attention(subject));
    points.extend(machine(target, bench));
    let step = |index: usize| Point {
        op: STEP,
        kernel: Kernel::Step(index),
        at: [u32::try_from(index).unwrap_or(u32::MAX), 0],
        held_out: index % 2 == 1,
        work: 0.0,
    };
    points.extend((0..steps).map(step));
    points
}

/// Grids of attention, row by row, and points inside their cells.
fn attention(subject: &Subject) -> Vec<Point> {
    let Subject { max_tokens, max_sequences, max_context, .. } = *subject;
    let mut histories = vec![0];
    histories.extend(quarters((max_context / 8).max(1), max_context));
    let prefill = |held_out| {
        move |at: [u32; 2]| Point {
            op: PREFILL_ATTENTION,
            kernel: Kernel::Prefill,
            at,
            held_out,
            work: f64::from(at[0]) * f64::from(at[0] + at[1]),
        }
    };
    let decode = |held_out| {
        move |at: [u32; 2]| Point {
            op: DECODE_ATTENTION,
            kernel: Kernel::Decode,
            at,
            held_out,
            work: f64::from(at[0]) * f64::from(at[1]),
        }
    };
    let grid = |rows: Vec<u32>, columns: &[u32]| -> Vec<[u32; 2]> {
        rows.into_iter().flat_map(|row| columns.iter().map(move |&column| [row, column])).collect()
    };
    let contexts = quarters(16.min(max_context), max_context);
    let mut points: Vec<Point> =
        grid(sweep(max_tokens), &histories).into_iter().map(prefill(false)).collect();
    points.extend(grid(quarters(1, max_sequences), &contexts).into_iter().map(decode(false)));
    let inside = |share: f64, most: u32| ((f64::from(most) * share) as u32).max(1);
    for (row, column) in [(0.04, 0.09), (0.11, 0.3), (0.22, 0.7), (0.42, 0.05), (0.8, 0.4)] {
        points.push(prefill(true)([inside(row, max_tokens), inside(column, max_context)]));
        points.push(decode(true)([inside(row, max_sequences), inside(column, max_context)]));
    }
    // A point of the grid cannot be held out of it.
    let on_grid: Vec<_> =
        points.iter().filter(|point| !point.held_out).map(|point| (point.op, point.at)).collect();
    points.retain(|point| !point.held_out || !on_grid.contains(&(point.op, point.at)));
    points
}

/// Memory, launches, the ways to the host and to the disk.
fn machine(target: &Target, bench: &Bench) -> Vec<Point> {
    let most = copy_bytes(target);
    let point =
        |op, kernel, bytes| Point { op, kernel, at: [bytes, 0], held_out: false, work: f64::from(bytes) };
    let mut points = vec![point(LAUNCH, Kernel::Launch, 4)];
    for shift in [8, 4, 1, 0] {
        let bytes = (most >> shift).max(4);
        points.push(point(COPY, Kernel::Copy, bytes));
        if target.kind != Kind::Cpu {
            points.push(point(TO_DEVICE, Kernel::ToDevice, bytes));
            points.push(point(TO_HOST, Kernel::ToHost, bytes));
        }
    }
    if bench.has_disk() {
        points.push(point(DISK, Kernel::Disk, DISK_BYTES));
    }
    points
}

/// Tokens that a cache of the real transformer holds: those of its steps, and of the requests that it serves.
pub(crate) fn capacity(subject: &Subject, steps: &[Vec<Chunk>]) -> usize {
    let held = steps.iter().flatten().map(|chunk| chunk.past + chunk.tokens).max().unwrap_or(0);
    held.max(served_tokens(subject) as usize)
}

/// The longest request that it serves.
pub(crate) fn served_tokens(subject: &Subject) -> u32 {
    subject.max_context.min(SERVED_MAX)
}

/// Steps of the real transformer: prefills, decodes, both. Those at odd places are held out.
pub(crate) fn steps(subject: &Subject) -> Vec<Vec<Chunk>> {
    let share = |of: u32| move |share: f64| ((f64::from(of) * share) as usize).max(1);
    let tokens = share(subject.max_tokens);
    let context = share(subject.max_context.min(CONTEXT_MAX));
    let step = |prefills: &[(f64, f64)], decodes: &[f64]| {
        let mut chunks = Vec::new();
        for &(new, past) in prefills {
            let past = if past > 0.0 { context(past) } else { 0 };
            chunks.push(Chunk { slot: chunks.len(), past, tokens: tokens(new), samples: true });
        }
        for &length in decodes {
            let past = context(length).max(2) - 1;
            chunks.push(Chunk { slot: chunks.len(), past, tokens: 1, samples: true });
        }
        chunks
    };
    let many = [0.1, 0.2, 0.25, 0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9];
    vec![
        step(&[(0.25, 0.0)], &[]),
        step(&[(0.4, 0.15)], &[]),
        step(&[], &[0.4]),
        step(&[], &many[..8]),
        step(&[], &many),
        step(&[(0.2, 0.0)], &many[2..8]),
        step(&[(0.7, 0.0)], &[]),
        step(&[(0.12, 0.0), (0.3, 0.1)], &many[..4]),
        step(&[(0.35, 0.2)], &many[3..6]),
        step(&[], &[0.2, 0.85]),
        step(&[], &many[4..8]),
        step(&[(0.1, 0.5)], &many[..10]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_has_one_and_two_and_ends_where_it_is_told_to() {
        assert_eq!(sweep(20), [1, 2, 3, 4, 6, 8, 12, 16, 20]);
        assert_eq!(sweep(2), [1, 2]);
        assert_eq!(between(100), [5, 20, 80]);
        assert!(
            between(5000).iter().all(|size| !sweep(5000).contains(size)),
            "what is held out is not swept"
        );
        assert_eq!(quarters(16, 100), [16, 32, 64, 100]);
    }
}
