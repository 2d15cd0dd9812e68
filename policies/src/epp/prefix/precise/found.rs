//! What a lookup finds of one pod.

use super::config::{KINDS_MAX, TierWeights};

/// Why a pod is believed to have a block: a tier that it reported, or a request that was just sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind(u8);

impl Kind {
    /// Nobody reported it: a request with this block is on its way.
    pub const SPECULATIVE: Self = Self(0);
    /// The pod's GPU memory.
    pub const GPU: Self = Self(1);
    /// The pod's CPU memory.
    pub const CPU: Self = Self(2);

    pub(super) const fn tier(number: u8) -> Self {
        Self(number)
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The kinds in which a pod has a block, and the largest of their weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Presence {
    kinds: u8,
    weight: f64,
}

impl Presence {
    pub(super) fn add(&mut self, kind: Kind, weights: &TierWeights) {
        self.kinds |= 1 << kind.index();
        self.weight = self.weight.max(weights.of(kind));
    }

    pub(super) fn is_absent(self) -> bool {
        self.kinds == 0
    }
}

/// What one pod has of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// Sum over its leading blocks of the largest weight among the tiers that have it.
    pub score: f64,
    /// Leading blocks in any tier.
    pub cached: u32,
    /// Leading blocks by kind: those that are all in this kind.
    by_kind: [u32; KINDS_MAX],
}

impl Found {
    /// Leading blocks that are all of `kind`.
    #[must_use]
    pub fn leading(&self, kind: Kind) -> u32 {
        self.by_kind[kind.index()]
    }

    /// Blocks that count as matched: the weighted sum without its fraction. It is a sum of floats block by block: ten
    /// blocks of weight 0.8 are 7.
    #[must_use]
    pub fn matched(&self) -> u32 {
        self.score as u32
    }

    /// The next `blocks` blocks, after `at`, are there like this.
    pub(super) fn extend(&mut self, at: u32, blocks: u32, presence: Presence) {
        for (kind, leading) in self.by_kind.iter_mut().enumerate() {
            if *leading == at && presence.kinds & (1 << kind) != 0 {
                *leading += blocks;
            }
        }
        self.cached += blocks;
        // Whole numbers add up exactly; others must be added one by one, as upstream does.
        if presence.weight.fract() == 0.0 && self.score.fract() == 0.0 {
            self.score += presence.weight * f64::from(blocks);
        } else {
            (0..blocks).for_each(|_| self.score += presence.weight);
        }
    }
}
