//! One CSV line per request: the source of every other figure, and a trace that can be read back.
//!
//! Columns are stable: new ones are appended, none is moved. Seconds have nine decimals and milliseconds
//! six, so that no nanosecond is lost; an empty cell means absent. Numbers are formatted from integers, so
//! that identical runs give identical bytes on every machine.

use std::fmt::{self, Display, Write as _};
use std::io;

use forerun_sim::observer::Observer;
use forerun_sim::request::{Cause, Labels, Outcome, ReplicaId, Status};
use forerun_sim::time::{NANOS_PER_SECOND, Span, Time};

/// The columns before the breakdown by cause.
const COLUMNS: [&str; 30] = [
    "id",
    "arrival_s",
    "tenant",
    "session",
    "turn",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "prefill_replica",
    "replica",
    "model",
    "adapter",
    "class",
    "scheduled_s",
    "first_token_s",
    "finished_s",
    "ttft_ms",
    "tpot_ms",
    "e2e_ms",
    "transfer_ms",
    "cached_gpu_tokens",
    "cached_cpu_tokens",
    "cached_disk_tokens",
    "cached_shared_tokens",
    "preemptions",
    "status",
    "reason",
    "duplicate_tokens",
    "retries",
    "emitted_tokens",
];

/// The causes that have a column of their own at the end; transfers have theirs among [`COLUMNS`].
fn appended_causes() -> impl Iterator<Item = Cause> {
    Cause::ALL.into_iter().filter(|&cause| cause != Cause::Transfer)
}

/// Writes a line for every request that ends, in the order in which they end, those of the warm-up
/// included. The first error is kept, nothing more is written after it, and [`finish`](Self::finish)
/// returns it.
#[derive(Debug)]
pub struct OutcomeWriter<W: io::Write> {
    csv: csv::Writer<W>,
    replicas: Vec<String>,
    cell: String,
    error: Option<csv::Error>,
}

impl<W: io::Write> OutcomeWriter<W> {
    /// A writer to `output`, which it buffers. `replicas` are the names of the replicas, in the order of
    /// [`ReplicaId`].
    pub fn new(output: W, replicas: Vec<String>) -> Self {
        let mut writer =
            Self { csv: csv::Writer::from_writer(output), replicas, cell: String::new(), error: None };
        let header = COLUMNS.into_iter().map(str::to_owned);
        let causes = appended_causes().map(|cause| format!("{}_ms", cause.key()));
        let last = std::iter::once("restarts".to_owned());
        writer.error = writer.csv.write_record(header.chain(causes).chain(last)).err();
        writer
    }

    /// Writes what is buffered and returns the output.
    ///
    /// # Errors
    /// The first error met while writing.
    pub fn finish(self) -> io::Result<W> {
        match self.error {
            Some(error) => Err(match error.into_kind() {
                csv::ErrorKind::Io(error) => error,
                other => io::Error::other(format!("{other:?}")),
            }),
            None => self.csv.into_inner().map_err(csv::IntoInnerError::into_error),
        }
    }

    fn write(&mut self, outcome: &Outcome, labels: &Labels) -> csv::Result<()> {
        self.write_request(outcome, labels)?;
        self.write_times(outcome)?;
        self.write_tokens_and_end(outcome)?;
        for cause in appended_causes() {
            self.show(Millis(outcome.spent.get(cause)))?;
        }
        self.show(outcome.restarts)?;
        self.csv.write_record(None::<&[u8]>)
    }

    /// `id` to `class`.
    fn write_request(&mut self, outcome: &Outcome, labels: &Labels) -> csv::Result<()> {
        let request = &outcome.request;
        match &request.name {
            Some(name) => self.text(name)?,
            None => self.show(request.id.0)?,
        }
        self.show(Seconds(request.arrival))?;
        self.text(labels.name(request.tenant))?;
        match &request.session {
            Some(session) => {
                match &session.name {
                    Some(name) => self.text(name)?,
                    None => self.show(session.id)?,
                }
                self.show(session.turn)?;
            }
            None => {
                self.absent()?;
                self.absent()?;
            }
        }
        self.show(request.prompt.tokens())?;
        self.show(request.output_tokens)?;
        self.show_some(cached_tokens(outcome))?;
        for replica in [outcome.prefill_replica, outcome.replica] {
            match replica {
                Some(replica) => self.replica(replica)?,
                None => self.absent()?,
            }
        }
        self.text(labels.name(request.model))?;
        self.text(labels.name(request.adapter))?;
        self.text(labels.name(request.class))
    }

    /// `scheduled_s` to `transfer_ms`.
    fn write_times(&mut self, outcome: &Outcome) -> csv::Result<()> {
        let finished = (outcome.status != Status::Unfinished).then_some(outcome.ended);
        self.show_some(outcome.scheduled.map(Seconds))?;
        self.show_some(outcome.first_token.map(Seconds))?;
        self.show_some(finished.map(Seconds))?;
        self.show_some(outcome.ttft().map(Millis))?;
        self.show_some(tpot(outcome).map(Millis))?;
        self.show_some(outcome.e2e().map(Millis))?;
        self.show(Millis(outcome.spent.get(Cause::Transfer)))
    }

    /// `cached_gpu_tokens` to `emitted_tokens`.
    fn write_tokens_and_end(&mut self, outcome: &Outcome) -> csv::Result<()> {
        let cached = cached_tokens(outcome);
        let by_tier = [
            outcome.cached_gpu_tokens(),
            outcome.cached_cpu_tokens,
            outcome.cached_disk_tokens,
            outcome.cached_shared_tokens,
        ];
        for tokens in by_tier {
            self.show_some(cached.map(|_| tokens))?;
        }
        self.show(outcome.preemptions)?;
        self.text(outcome.status.word())?;
        self.text(outcome.status.reason())?;
        self.show(outcome.duplicate_tokens)?;
        self.show(outcome.retries)?;
        self.show(outcome.emitted)
    }

    fn replica(&mut self, replica: ReplicaId) -> csv::Result<()> {
        self.csv.write_field(&self.replicas[replica.0 as usize])
    }

    fn text(&mut self, text: &str) -> csv::Result<()> {
        self.csv.write_field(text)
    }

    fn absent(&mut self) -> csv::Result<()> {
        self.csv.write_field("")
    }

    fn show(&mut self, value: impl Display) -> csv::Result<()> {
        self.cell.clear();
        write!(self.cell, "{value}").expect("a string takes any text");
        self.csv.write_field(&self.cell)
    }

    fn show_some(&mut self, value: Option<impl Display>) -> csv::Result<()> {
        match value {
            Some(value) => self.show(value),
            None => self.absent(),
        }
    }
}

impl<W: io::Write> Observer for OutcomeWriter<W> {
    fn ended(&mut self, outcome: &Outcome, labels: &Labels) {
        if self.error.is_none() {
            self.error = self.write(outcome, labels).err();
        }
    }
}

/// Tokens found in a cache; absent when the engine never looked.
fn cached_tokens(outcome: &Outcome) -> Option<u32> {
    outcome.scheduled.map(|_| outcome.cached_tokens)
}

/// TPOT to the nearest nanosecond, by integer division.
fn tpot(outcome: &Outcome) -> Option<Span> {
    let first = outcome.first_token?;
    let gaps = u64::from(outcome.emitted.checked_sub(1).filter(|&gaps| gaps > 0)?);
    let span = outcome.ended.since(first).as_nanos();
    (outcome.status == Status::Completed).then(|| Span::from_nanos((span + gaps / 2) / gaps))
}

/// A time in seconds with nine decimals.
struct Seconds(Time);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        write!(f, "{}.{:09}", nanos / NANOS_PER_SECOND, nanos % NANOS_PER_SECOND)
    }
}

/// A span in milliseconds with six decimals.
struct Millis(Span);

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        write!(f, "{}.{:06}", nanos / 1_000_000, nanos % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::completed;
    use forerun_sim::request::{Failure, Rejection, Session};
    use std::sync::Arc;

    fn lines(outcomes: &[Outcome], labels: &Labels) -> Vec<String> {
        let mut writer = OutcomeWriter::new(Vec::new(), vec!["pool-0".to_owned()]);
        for outcome in outcomes {
            writer.ended(outcome, labels);
        }
        let text = String::from_utf8(writer.finish().unwrap()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_columns_are_those_of_the_contract_then_the_appended_ones() {
        assert_eq!(
            lines(&[], &Labels::default())[0],
            "id,arrival_s,tenant,session,turn,input_tokens,output_tokens,cached_tokens,prefill_replica,\
             replica,model,adapter,class,scheduled_s,first_token_s,finished_s,ttft_ms,tpot_ms,e2e_ms,\
             transfer_ms,cached_gpu_tokens,cached_cpu_tokens,cached_disk_tokens,cached_shared_tokens,\
             preemptions,status,reason,duplicate_tokens,retries,emitted_tokens,\
             overhead_ms,router_queue_ms,engine_queue_step_ms,engine_queue_slots_ms,engine_queue_kv_ms,\
             engine_queue_budget_ms,engine_queue_lora_ms,own_prefill_ms,decode_ms,\
             stalled_by_others_prefill_ms,restarts"
        );
    }

    #[test]
    fn a_completed_request_fills_its_line() {
        let mut labels = Labels::default();
        let mut outcome = completed(1000, 100, 300, 4);
        outcome.request.name = Some("req, \"7\"".into());
        outcome.request.tenant = labels.intern("acme");
        outcome.request.class = labels.intern("chat");
        outcome.request.session = Some(Session { id: 9, name: Some(Arc::from("s-9")), turn: 2 });
        outcome.preemptions = 1;
        outcome.duplicate_tokens = 16;
        assert_eq!(
            lines(&[outcome], &labels)[1],
            "\"req, \"\"7\"\"\",1.000000000,acme,s-9,2,1000,4,400,,pool-0,,,chat,\
             1.020000000,1.100000000,1.300000000,100.000000,66.666667,300.000000,0.000000,\
             400,0,0,0,1,completed,,16,0,4,\
             10.000000,0.000000,10.000000,0.000000,0.000000,0.000000,0.000000,80.000000,200.000000,0.000000,0"
        );
    }

    #[test]
    fn what_never_happened_is_an_empty_cell() {
        let mut outcome = completed(0, 100, 300, 4);
        outcome.status = Status::Rejected(Rejection::TooLong);
        (outcome.replica, outcome.queued, outcome.scheduled, outcome.first_token) = (None, None, None, None);
        (outcome.ended, outcome.emitted, outcome.cached_tokens) = (outcome.request.arrival, 0, 0);
        outcome.spent = forerun_sim::request::Breakdown::default();
        assert_eq!(
            lines(&[outcome], &Labels::default())[1],
            "0,0.000000000,,,,1000,4,,,,,,,,,0.000000000,,,,0.000000,,,,,0,rejected,too_long,0,0,0,\
             0.000000,0.000000,0.000000,0.000000,0.000000,0.000000,0.000000,0.000000,0.000000,0.000000,0"
        );
    }

    #[test]
    fn an_unfinished_request_has_no_end() {
        let mut outcome = completed(0, 100, 300, 4);
        outcome.status = Status::Unfinished;
        let line = lines(&[outcome], &Labels::default()).remove(1);
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |name: &str| cells[COLUMNS.iter().position(|&column| column == name).unwrap()];
        assert_eq!((cell("finished_s"), cell("e2e_ms"), cell("tpot_ms")), ("", "", ""));
        assert_eq!((cell("ttft_ms"), cell("status")), ("100.000000", "unfinished"));
    }

    #[test]
    fn the_first_error_is_returned_at_the_end() {
        struct Full;
        impl io::Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = OutcomeWriter::new(Full, vec!["pool-0".to_owned()]);
        let mut outcome = completed(0, 100, 300, 4);
        outcome.status = Status::Failed(Failure::Timeout);
        for _ in 0..1000 {
            writer.ended(&outcome, &Labels::default());
        }
        assert_eq!(writer.finish().map(|_| ()).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
