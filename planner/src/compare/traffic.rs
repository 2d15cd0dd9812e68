//! Whether variants saw the same traffic, checked request by request.

use std::hash::{DefaultHasher, Hash, Hasher as _};

use forerun_reports::compare::Traffic;
use forerun_sim::observer::Observer;
use forerun_sim::request::Request;

/// What a run was sent, as sums that do not depend on the order of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    requests: u64,
    /// What the requests ask.
    content: u64,
    /// When they arrive.
    arrivals: u64,
}

impl Observer for Sent {
    fn arrived(&mut self, request: &Request) {
        // Requests are told apart by what they generate: its identity is the record's number in the workload.
        let Request { prompt, output, output_tokens, stop, max_tokens, priority, session, .. } = request;
        let Request { tenant, class, model, adapter, .. } = request;
        let mut content = DefaultHasher::new();
        (output, output_tokens, stop, max_tokens, priority).hash(&mut content);
        (tenant, class, model, adapter, session.as_ref().map(|s| (s.id, s.turn))).hash(&mut content);
        for segment in prompt.segments() {
            (segment.content, segment.tokens).hash(&mut content);
        }
        let mut arrival = DefaultHasher::new();
        (output, request.arrival.as_nanos()).hash(&mut arrival);
        self.requests += 1;
        self.content = self.content.wrapping_add(content.finish());
        self.arrivals = self.arrivals.wrapping_add(arrival.finish());
    }
}

/// Compares what the variants were sent, each for all seeds. `same_workload`: their scenarios describe the same.
pub(super) fn traffic(sent: &[Vec<Sent>], same_workload: bool) -> Traffic {
    let requests = sent[0].iter().map(|sent| sent.requests).sum();
    let same = |of: fn(&Sent) -> u64| {
        sent[1..].iter().all(|other| other.iter().zip(&sent[0]).all(|(a, b)| of(a) == of(b)))
    };
    let same_requests = same(|sent| sent.content) && same(|sent| sent.requests);
    let same_arrivals = same_requests && same(|sent| sent.arrivals);
    let paired = same_workload || same_requests;
    let runs = if sent[0].len() > 1 { format!(" in each of {} runs", sent[0].len()) } else { String::new() };
    let about = match (same_requests, same_arrivals, same_workload) {
        (_, true, _) => {
            format!("Every variant was sent the same requests at the same times{runs} (checked).")
        }
        (true, false, false) => format!(
            "Every variant was sent the same requests{runs} (checked), at other times: the workloads differ."
        ),
        (true, false, true) => format!(
            "Every variant was sent the same requests{runs} (checked); some follow answers, so that their times depend \
             on the variant."
        ),
        (false, _, true) => {
            "Every variant has the same workload and seeds; how much of it is sent depends on the answers."
                .into()
        }
        (false, _, false) => {
            "The variants have different workloads: differences are not the fleet's alone.".into()
        }
    };
    Traffic { requests, same_requests, same_arrivals, paired, about }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told() {
        let sent = Sent { requests: 10, content: 7, arrivals: 3 };
        let later = Sent { arrivals: 4, ..sent };
        let other = Sent { content: 8, ..sent };
        let told = |a: Sent, b: Sent, same_workload| traffic(&[vec![a; 2], vec![b; 2]], same_workload);
        let same = told(sent, sent, true);
        assert!(same.same_requests && same.same_arrivals && same.paired && same.requests == 20);
        let following = told(sent, later, true);
        assert!(following.same_requests && !following.same_arrivals && following.paired);
        assert!(following.about.contains("follow answers"));
        assert!(told(sent, later, false).about.contains("at other times"));
        let cut = told(sent, other, true);
        assert!(!cut.same_requests && !cut.same_arrivals && cut.paired);
        let different = told(sent, other, false);
        assert!(!different.paired && different.about.contains("different workloads"));
    }
}
