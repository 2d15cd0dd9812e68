//! Prompts as segments of known identity, and the chained block hashes that prefix caching compares.
//!
//! No token id is ever materialised. A prompt is a list of segments; two prompts share a prefix exactly as
//! far as their segments agree. A recorded block hash, a system prompt, an earlier turn's answer and a
//! private question are all segments.

use smallvec::SmallVec;

/// The identity of a piece of text: equal contents are equal token by token.
///
/// The constructors keep their name spaces apart: a private question never equals a system prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Content(u64);

impl Content {
    /// Text that many requests may contain: a system prompt, a document, prefix group `id`.
    #[must_use]
    pub const fn shared(id: u64) -> Self {
        Self::tagged(1, id)
    }

    /// Text that only request (or turn) `id` contains.
    #[must_use]
    pub const fn private(id: u64) -> Self {
        Self::tagged(2, id)
    }

    /// What request `id` generates: a later turn contains it.
    #[must_use]
    pub const fn generated(id: u64) -> Self {
        Self::tagged(3, id)
    }

    /// The 64 bits that tell this text from every other.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether this is text that only one request, or the later turns of its session, contain.
    #[must_use]
    pub const fn is_private(self) -> bool {
        self.0 >> 60 == 2
    }

    /// Whether this is text that some request generates.
    #[must_use]
    pub const fn is_generated(self) -> bool {
        self.0 >> 60 == 3
    }

    /// A block of a recorded trace, by its recorded hash.
    #[must_use]
    pub const fn recorded(hash: u64) -> Self {
        Self::tagged(4, hash)
    }

    /// This text in another copy of its workload, so that copies do not falsely share it. Shared texts stay
    /// shared: they are the same for everybody. For numbers below 2^60,
    /// `generated(n).resalted(salt) == generated(n ^ salt)`, so that a copy can name what it generates.
    ///
    /// # Panics
    /// When `salt` is not below 2^60.
    #[must_use]
    pub const fn resalted(self, salt: u64) -> Self {
        assert!(salt < 1 << 60, "a salt leaves the name space alone");
        match self.0 >> 60 {
            1 => self,
            _ => Self(self.0 ^ salt),
        }
    }

    /// Ids below 2^60 map one to one; larger ones (full 64-bit hashes) are folded.
    const fn tagged(tag: u64, id: u64) -> Self {
        let folded = if id < 1 << 60 { id } else { mix(id, tag) >> 4 };
        Self(tag << 60 | folded)
    }
}

/// `tokens` tokens of `content`, from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Which text.
    pub content: Content,
    /// How many of its first tokens.
    pub tokens: u32,
}

/// A prompt: segments in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    segments: SmallVec<[Segment; 3]>,
    tokens: u32,
}

impl Clone for Prompt {
    /// Segments are plain numbers: they are copied at once.
    fn clone(&self) -> Self {
        Self { segments: SmallVec::from_slice(&self.segments), tokens: self.tokens }
    }
}

impl Prompt {
    /// An empty prompt, to be extended.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A prompt of one segment.
    #[must_use]
    pub fn of(content: Content, tokens: u32) -> Self {
        let mut prompt = Self::new();
        prompt.push(content, tokens);
        prompt
    }

    /// Appends `tokens` tokens of `content`. A segment of no tokens leaves no trace.
    ///
    /// # Panics
    /// When the prompt would exceed `u32::MAX` tokens; readers bound their input far below.
    pub fn push(&mut self, content: Content, tokens: u32) {
        if tokens > 0 {
            self.tokens = self.tokens.checked_add(tokens).expect("a prompt has fewer than 2^32 tokens");
            self.segments.push(Segment { content, tokens });
        }
    }

    /// Appends all segments of `other`.
    pub fn extend(&mut self, other: &Self) {
        for segment in &other.segments {
            self.push(segment.content, segment.tokens);
        }
    }

    /// This prompt in another copy of its workload: see [`Content::resalted`].
    #[must_use]
    pub fn resalted(mut self, salt: u64) -> Self {
        for segment in &mut self.segments {
            segment.content = segment.content.resalted(salt);
        }
        self
    }

    /// Total length in tokens.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Whether it contains text that some request generates.
    #[must_use]
    pub fn has_answers(&self) -> bool {
        self.segments.iter().any(|segment| segment.content.is_generated())
    }

    /// Leading tokens that two prompts have in common.
    #[must_use]
    pub fn common_tokens(&self, other: &Self) -> u32 {
        let mut common = 0;
        for (own, others) in self.segments.iter().zip(&other.segments) {
            if own.content == others.content {
                common += own.tokens.min(others.tokens);
            }
            if own != others {
                break;
            }
        }
        common
    }

    /// The segments in order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// The chained hash of a full KV block: it names the block's tokens and everything before them.
///
/// vLLM: `hash_i = H(hash_{i-1}, tokens of block i, extra)` with the adapter in every block and the cache
/// salt in block 0; chaining makes both equivalent to a different root. 64 bits: with ten million blocks
/// alive the chance of one collision is 3e-6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(u64);

/// Extends a chain of block hashes along one request's tokens: its prompt, then what it generates.
#[derive(Clone, Debug)]
pub struct HashChain {
    block_tokens: u32,
    last: u64,
    /// Position of the chain's end: segment index (prompt segments, then the output) and offset in it.
    segment: usize,
    offset: u32,
}

impl HashChain {
    /// A chain that starts at token 0. Requests whose `adapter` or `salt` differ share no block.
    #[must_use]
    pub fn new(block_tokens: u32, adapter: Option<u32>, salt: u64) -> Self {
        let root = mix(salt, adapter.map_or(0, |id| u64::from(id) + 1));
        Self { block_tokens, last: root, segment: 0, offset: 0 }
    }

    /// Appends to `hashes` every block that is full once `known` tokens are: all of `prompt`, then
    /// `output`. `known` never shrinks between calls.
    pub fn extend(&mut self, hashes: &mut Vec<BlockHash>, prompt: &Prompt, output: Content, known: u32) {
        while (hashes.len() as u32 + 1) * self.block_tokens <= known {
            let mut missing = self.block_tokens;
            while missing > 0 {
                let (content, left) = match prompt.segments.get(self.segment) {
                    Some(segment) => (segment.content, segment.tokens - self.offset),
                    None => (output, u32::MAX),
                };
                let taken = missing.min(left);
                self.last = mix(self.last ^ content.0, u64::from(self.offset) << 32 | u64::from(taken));
                missing -= taken;
                if taken == left {
                    self.segment += 1;
                    self.offset = 0;
                } else {
                    self.offset += taken;
                }
            }
            hashes.push(BlockHash(self.last));
        }
    }
}

/// A folded 64 x 64 -> 128 bit multiplication: every input bit reaches every output bit.
const fn mix(a: u64, b: u64) -> u64 {
    let product = ((a ^ 0xa076_1d64_78bd_642f) as u128).wrapping_mul((b ^ 0xe703_7ed1_a0b4_28db) as u128);
    let folded = (product >> 64) as u64 ^ product as u64;
    folded ^ (folded >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(segments: &[(Content, u32)], output: u32) -> Vec<BlockHash> {
        let mut prompt = Prompt::new();
        segments.iter().for_each(|&(content, tokens)| prompt.push(content, tokens));
        let mut chain = HashChain::new(16, None, 0);
        let mut out = Vec::new();
        chain.extend(&mut out, &prompt, Content::generated(9), prompt.tokens());
        chain.extend(&mut out, &prompt, Content::generated(9), prompt.tokens() + output);
        out
    }

    fn shared_blocks(a: &[BlockHash], b: &[BlockHash]) -> usize {
        a.iter().zip(b).take_while(|(x, y)| x == y).count()
    }

    #[test]
    fn prompts_share_as_many_full_blocks_as_their_segments_agree() {
        let system = Content::shared(0);
        let a = hashes(&[(system, 50), (Content::private(1), 50)], 0);
        let b = hashes(&[(system, 50), (Content::private(2), 50)], 0);
        assert_eq!(shared_blocks(&a, &b), 3, "50 shared tokens are 3 full blocks");
    }

    #[test]
    fn a_shorter_cut_of_the_same_text_shares_its_full_blocks() {
        let a = hashes(&[(Content::shared(0), 64)], 0);
        let b = hashes(&[(Content::shared(0), 40), (Content::private(1), 24)], 0);
        assert_eq!(shared_blocks(&a, &b), 2);
    }

    #[test]
    fn the_next_turn_contains_what_was_generated() {
        let first = hashes(&[(Content::private(1), 30)], 34);
        let second =
            hashes(&[(Content::private(1), 30), (Content::generated(9), 34), (Content::private(2), 16)], 0);
        assert_eq!(shared_blocks(&first, &second), 4);
    }

    #[test]
    fn adapters_and_salts_share_nothing() {
        let prompt = Prompt::of(Content::shared(0), 16);
        let first = |adapter, salt| {
            let mut out = Vec::new();
            HashChain::new(16, adapter, salt).extend(&mut out, &prompt, Content::generated(0), 16);
            out[0]
        };
        assert_ne!(first(None, 0), first(Some(0), 0));
        assert_ne!(first(Some(0), 0), first(Some(1), 0));
        assert_ne!(first(None, 0), first(None, 1));
    }

    #[test]
    fn another_copy_of_a_workload_shares_only_what_is_shared() {
        let salt = 3 << 40;
        assert_eq!(Content::shared(7).resalted(salt), Content::shared(7));
        assert_eq!(Content::generated(7).resalted(salt), Content::generated(7 ^ salt));
        for content in [Content::private(7), Content::generated(7), Content::recorded(u64::MAX)] {
            assert_ne!(content.resalted(salt), content);
            assert_eq!(content.resalted(salt).resalted(salt), content, "the salt keeps contents apart");
        }
    }

    #[test]
    fn name_spaces_of_contents_are_disjoint() {
        let ids = [0, 1, u64::MAX, 1 << 60];
        let all = [Content::shared, Content::private, Content::generated, Content::recorded];
        let mut seen: Vec<_> = all.iter().flat_map(|make| ids.map(make)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 16);
    }
}
