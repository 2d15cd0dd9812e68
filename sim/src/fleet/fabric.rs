//! The network between engines: links, and transfers that share them.
//!
//! A transfer crosses a path of links, for instance the sender's and the receiver's adapter. Bandwidth is shared
//! max-min fairly, computed anew whenever a transfer starts or ends: nobody's share can grow without taking from
//! somebody who has no more (Bertsekas and Gallager, Data Networks, 1992, section 6.5.2). The last byte arrives one
//! latency of the path after it was sent.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::time::{NANOS_PER_SECOND, Span, Time};

/// What a link can carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkSpec {
    /// Line rate in one direction, in bytes per second.
    pub bandwidth: f64,
    /// Share of the line rate that KV transfers reach, in (0, 1].
    pub efficiency: f64,
    /// From the first byte sent to the first byte received.
    pub latency: Span,
}

impl LinkSpec {
    /// NVLink 4 of one H100 or H200: 900 GB/s in both directions together (NVIDIA H100 datasheet). The efficiency is
    /// an assumption: large peer copies reach about 0.8 of the line rate.
    pub const NVLINK4: Self = Self { bandwidth: 450e9, efficiency: 0.8, latency: Span::from_nanos(2_000) };

    /// One 200 Gb/s RDMA adapter. Efficiency: 4 GB of KV took 359 to 362 ms (llm-d v0.5 release blog), 11.1 GB/s of
    /// 25. The latency is an assumption.
    pub const RDMA_200G: Self = Self { bandwidth: 25e9, efficiency: 0.45, latency: Span::from_nanos(50_000) };

    /// One 400 Gb/s RDMA adapter, as in an HGX H100: twice the above.
    pub const RDMA_400G: Self = Self { bandwidth: 50e9, ..Self::RDMA_200G };

    /// TCP over 100 Gb/s Ethernet. Efficiency and latency are assumptions: no copy-free path to GPU memory, and the
    /// kernel's network stack at both ends.
    pub const TCP_100G: Self =
        Self { bandwidth: 12.5e9, efficiency: 0.3, latency: Span::from_nanos(200_000) };

    /// Bytes per second that it really carries.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        self.bandwidth * self.efficiency
    }

    /// How long it takes for so many bytes when it carries nothing else, rounded up.
    #[must_use]
    pub fn alone(&self, bytes: u64) -> Span {
        let nanos = bytes as f64 / self.throughput() * NANOS_PER_SECOND as f64;
        self.latency + Span::from_nanos(nanos.ceil() as u64)
    }
}

/// A link of a fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(u32);

/// A transfer of a fabric, numbered in order of start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferId(u64);

#[derive(Clone, Debug)]
struct Link {
    spec: LinkSpec,
    /// What is left of its throughput, in (0, 1]: below 1 while it is degraded.
    health: f64,
}

#[derive(Clone, Debug)]
struct Flow {
    path: SmallVec<[LinkId; 4]>,
    /// Bytes not sent yet when the shares were computed last.
    remaining: f64,
    /// Its share, in bytes per second.
    rate: f64,
    /// When its last byte is sent at that share.
    sent: Time,
    latency: Span,
}

/// Links, and what is on them.
#[derive(Clone, Debug, Default)]
pub struct Fabric {
    links: Vec<Link>,
    flows: BTreeMap<TransferId, Flow>,
    /// Sent, and not arrived yet.
    arriving: BTreeMap<(Time, TransferId), ()>,
    started: u64,
    /// When the shares were computed last.
    shared_at: Time,
}

impl Fabric {
    /// Adds a link.
    pub fn add_link(&mut self, spec: LinkSpec) -> LinkId {
        self.links.push(Link { spec, health: 1.0 });
        LinkId(self.links.len() as u32 - 1)
    }

    /// Starts a transfer of `bytes` bytes over all links of `path`. Everything due before `now` has been taken with
    /// [`take_arrived`](Self::take_arrived).
    pub fn start(&mut self, now: Time, bytes: u64, path: &[LinkId]) -> TransferId {
        let id = TransferId(self.started);
        self.started += 1;
        let latency = path.iter().map(|link| self.links[link.0 as usize].spec.latency).sum();
        self.advance(now);
        if path.is_empty() || bytes == 0 {
            self.arriving.insert((now + latency, id), ());
            return id;
        }
        let flow = Flow { path: path.into(), remaining: bytes as f64, rate: 0.0, sent: Time::NEVER, latency };
        self.flows.insert(id, flow);
        self.share();
        id
    }

    /// Drops a transfer: its share goes to the others. No effect when it has arrived.
    pub fn cancel(&mut self, now: Time, id: TransferId) {
        self.advance(now);
        self.arriving.retain(|&(_, other), ()| other != id);
        if self.flows.remove(&id).is_some() {
            self.share();
        }
    }

    /// From now on a link carries only `health` of its throughput, in (0, 1]; 1 mends it.
    pub fn set_health(&mut self, now: Time, link: LinkId, health: f64) {
        debug_assert!(health > 0.0 && health <= 1.0, "a link that carries nothing never delivers");
        self.advance(now);
        self.links[link.0 as usize].health = health;
        self.share();
    }

    /// When something changes next: a transfer has been sent, or arrives.
    #[must_use]
    pub fn next_change(&self) -> Option<Time> {
        let sent = self.flows.values().map(|flow| flow.sent).min();
        let arrived = self.arriving.keys().next().map(|&(time, _)| time);
        sent.into_iter().chain(arrived).min()
    }

    /// Appends the transfers that have arrived by `now` to `arrived`, in order of arrival, then of start.
    pub fn take_arrived(&mut self, now: Time, arrived: &mut Vec<TransferId>) {
        while let Some(sent) = self.flows.values().map(|flow| flow.sent).min().filter(|&sent| sent <= now) {
            self.advance(sent);
            self.share();
        }
        while let Some((&(time, id), ())) = self.arriving.first_key_value() {
            if time > now {
                break;
            }
            self.arriving.pop_first();
            arrived.push(id);
        }
    }

    /// Transfers under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len() + self.arriving.len()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves all flows to `now`; those that are sent leave the links.
    fn advance(&mut self, now: Time) {
        let seconds = now.since(self.shared_at).as_secs_f64();
        self.shared_at = now;
        let arriving = &mut self.arriving;
        self.flows.retain(|&id, flow| {
            flow.remaining -= flow.rate * seconds;
            let sent = flow.sent <= now;
            if sent {
                arriving.insert((flow.sent + flow.latency, id), ());
            }
            !sent
        });
    }

    /// Computes every share: the link with the least room per flow is filled first, its flows are settled, and so on
    /// with what is left.
    fn share(&mut self) {
        let mut room: Vec<f64> = self.links.iter().map(|link| link.spec.throughput() * link.health).collect();
        let mut open = vec![0u32; self.links.len()];
        let mut unsettled: Vec<TransferId> = self.flows.keys().copied().collect();
        for link in self.flows.values().flat_map(|flow| &flow.path) {
            open[link.0 as usize] += 1;
        }
        while !unsettled.is_empty() {
            let crowded = (0..room.len()).filter(|&link| open[link] > 0);
            let share = |link: usize| room[link] / f64::from(open[link]);
            let narrowest = crowded.min_by(|&a, &b| share(a).total_cmp(&share(b)));
            let narrowest = narrowest.expect("a flow crosses a link");
            let rate = share(narrowest);
            unsettled.retain(|id| {
                let flow = self.flows.get_mut(id).expect("an unsettled flow");
                if !flow.path.contains(&LinkId(narrowest as u32)) {
                    return true;
                }
                flow.rate = rate;
                for link in &flow.path {
                    room[link.0 as usize] -= rate;
                    open[link.0 as usize] -= 1;
                }
                false
            });
        }
        for flow in self.flows.values_mut() {
            // At least a nanosecond, rounded up: what is sent is sent in full.
            let nanos = (flow.remaining.max(0.0) / flow.rate * NANOS_PER_SECOND as f64).ceil();
            flow.sent = self.shared_at + Span::from_nanos((nanos as u64).max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LATENCY: LinkSpec = LinkSpec { bandwidth: 1e9, efficiency: 1.0, latency: Span::ZERO };

    fn millis(time: Time) -> f64 {
        time.as_secs_f64() * 1e3
    }

    /// When each transfer arrives, in milliseconds, in order of arrival.
    fn arrivals(fabric: &mut Fabric) -> Vec<(TransferId, f64)> {
        let mut all = Vec::new();
        while let Some(now) = fabric.next_change() {
            let mut arrived = Vec::new();
            fabric.take_arrived(now, &mut arrived);
            all.extend(arrived.into_iter().map(|id| (id, millis(now))));
        }
        assert!(fabric.is_empty());
        all
    }

    fn near(got: &[(TransferId, f64)], expected: &[(TransferId, f64)]) {
        assert_eq!(got.len(), expected.len(), "{got:?}");
        for (one, other) in got.iter().zip(expected) {
            assert_eq!(one.0, other.0, "{got:?}");
            assert!((one.1 - other.1).abs() < 1e-3, "{got:?}, expected {expected:?}");
        }
    }

    #[test]
    fn four_gigabytes_over_200_gigabits_at_efficiency_0_45_take_360_ms() {
        let mut fabric = Fabric::default();
        let (from, to) = (fabric.add_link(LinkSpec::RDMA_200G), fabric.add_link(LinkSpec::RDMA_200G));
        fabric.start(Time::ZERO, 4_000_000_000, &[from, to]);
        let took = arrivals(&mut fabric)[0].1;
        assert!((took - 360.0).abs() < 5.0, "{took} ms; measured: 359 to 362");
    }

    #[test]
    fn transfers_share_a_link_and_the_rest_speeds_up_when_one_ends() {
        let mut fabric = Fabric::default();
        let link = fabric.add_link(NO_LATENCY);
        let short = fabric.start(Time::ZERO, 1_000_000, &[link]);
        let long = fabric.start(Time::ZERO, 3_000_000, &[link]);
        // Half each for 2 ms; then 2 MB are left with the whole link.
        near(&arrivals(&mut fabric), &[(short, 2.0), (long, 4.0)]);
    }

    #[test]
    fn a_transfer_that_comes_later_takes_its_share_from_then_on() {
        let mut fabric = Fabric::default();
        let link = fabric.add_link(NO_LATENCY);
        let first = fabric.start(Time::ZERO, 4_000_000, &[link]);
        let second = fabric.start(Time::from_nanos(2_000_000), 1_000_000, &[link]);
        near(&arrivals(&mut fabric), &[(second, 4.0), (first, 5.0)]);
    }

    #[test]
    fn who_is_limited_elsewhere_leaves_the_rest_to_the_others() {
        let mut fabric = Fabric::default();
        let wide = fabric.add_link(NO_LATENCY);
        let narrow = fabric.add_link(LinkSpec { bandwidth: 0.2e9, ..NO_LATENCY });
        let limited = fabric.start(Time::ZERO, 1_000_000, &[wide, narrow]);
        let free = fabric.start(Time::ZERO, 4_000_000, &[wide]);
        // 0.2 and 0.8 GB/s: both take 5 ms.
        near(&arrivals(&mut fabric), &[(limited, 5.0), (free, 5.0)]);
    }

    #[test]
    fn the_last_byte_arrives_one_latency_of_the_path_later_and_nobody_waits_for_that() {
        let mut fabric = Fabric::default();
        let link = fabric.add_link(LinkSpec { latency: Span::from_millis(1), ..NO_LATENCY });
        let first = fabric.start(Time::ZERO, 1_000_000, &[link, link]);
        let mut arrived = Vec::new();
        fabric.take_arrived(Time::from_nanos(2_000_000), &mut arrived);
        assert_eq!(arrived, [], "its two crossings share the link: sent after 2 ms, not arrived");
        let second = fabric.start(Time::from_nanos(2_000_000), 1_000_000, &[link]);
        near(&arrivals(&mut fabric), &[(first, 4.0), (second, 4.0)]);
    }

    #[test]
    fn a_cancelled_transfer_gives_its_share_back() {
        let mut fabric = Fabric::default();
        let link = fabric.add_link(NO_LATENCY);
        let dropped = fabric.start(Time::ZERO, 9_000_000, &[link]);
        let kept = fabric.start(Time::ZERO, 2_000_000, &[link]);
        fabric.cancel(Time::from_nanos(2_000_000), dropped);
        near(&arrivals(&mut fabric), &[(kept, 3.0)]);
    }

    #[test]
    fn a_degraded_link_is_slower_until_it_is_mended() {
        let mut fabric = Fabric::default();
        let link = fabric.add_link(NO_LATENCY);
        let transfer = fabric.start(Time::ZERO, 3_000_000, &[link]);
        fabric.set_health(Time::from_nanos(1_000_000), link, 0.5);
        fabric.set_health(Time::from_nanos(3_000_000), link, 1.0);
        near(&arrivals(&mut fabric), &[(transfer, 4.0)]);
    }

    #[test]
    fn nothing_to_send_arrives_at_once() {
        let mut fabric = Fabric::default();
        let link = fabric.add_link(NO_LATENCY);
        let transfer = fabric.start(Time::from_nanos(5_000_000), 0, &[link]);
        near(&arrivals(&mut fabric), &[(transfer, 5.0)]);
    }
}
