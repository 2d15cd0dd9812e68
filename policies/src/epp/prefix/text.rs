//! A prompt as a prefix index sees it: which tokens it has, cut into blocks, under a root.

use forerun_sim::prompt::{Content, Prompt};
use smallvec::SmallVec;

/// Tokens `start..end` of a text, cut from one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    content: Content,
    /// Where the content's first token would be, modulo 2^32: equal origins are equal tokens.
    origin: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Piece {
    /// Whether both are cuts of the same content at the same place.
    fn agrees(&self, other: &Self) -> bool {
        self.content == other.content && self.origin == other.origin
    }
}

/// The pieces of a text, or of a part of it, without gaps.
pub(super) type Pieces = SmallVec<[Piece; 3]>;

/// The tokens of one prompt in blocks. Two texts share a block exactly when they share their root and every token up
/// to the block's end. The last block may be partial: it equals only a last block of the same tokens.
#[derive(Clone, Debug, Default)]
pub struct Text {
    pieces: Pieces,
    tokens: u32,
    block_tokens: u32,
    root: u64,
}

impl Text {
    /// A text without tokens yet, in blocks of `block_tokens`. Texts under different roots share nothing: upstream
    /// seeds its chain of hashes with the model's name and the cache salt.
    ///
    /// # Panics
    /// When `block_tokens` is zero.
    #[must_use]
    pub fn new(root: u64, block_tokens: u32) -> Self {
        assert!(block_tokens > 0, "blocks have tokens");
        Self { pieces: Pieces::new(), tokens: 0, block_tokens, root: mix(root, u64::from(block_tokens)) }
    }

    /// The text of a whole prompt.
    #[must_use]
    pub fn of(prompt: &Prompt, root: u64, block_tokens: u32) -> Self {
        let mut text = Self::new(root, block_tokens);
        for segment in prompt.segments() {
            text.push(segment.content, 0, segment.tokens);
        }
        text
    }

    /// Appends `tokens` tokens of `content`, from its token `offset` on.
    ///
    /// # Panics
    /// When the text would exceed `u32::MAX` tokens; prompts are bounded far below.
    pub fn push(&mut self, content: Content, offset: u32, tokens: u32) {
        if tokens == 0 {
            return;
        }
        let start = self.tokens;
        let end = start.checked_add(tokens).expect("a text has fewer than 2^32 tokens");
        let piece = Piece { content, origin: start.wrapping_sub(offset), start, end };
        match self.pieces.last_mut() {
            // Tokens that follow each other in their content too are one piece, however they came.
            Some(last) if last.agrees(&piece) => last.end = end,
            _ => self.pieces.push(piece),
        }
        self.tokens = end;
    }

    /// This text without what follows its first `blocks` blocks.
    #[must_use]
    pub fn capped(mut self, blocks: u32) -> Self {
        self.tokens = self.tokens.min(blocks.saturating_mul(self.block_tokens));
        self
    }

    /// This text without its partial last block.
    #[must_use]
    pub fn full_blocks(mut self) -> Self {
        self.tokens -= self.tokens % self.block_tokens;
        self
    }

    /// Length in tokens.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Length in blocks, a partial last one included.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.tokens.div_ceil(self.block_tokens)
    }

    /// Tokens of a full block.
    #[must_use]
    pub fn block_tokens(&self) -> u32 {
        self.block_tokens
    }

    /// The chained key of every block: it names the block's tokens and everything before them.
    #[must_use]
    pub fn block_keys(&self) -> Vec<u64> {
        let mut place = 0;
        let mut key = self.root;
        let chain = (0..self.blocks()).map(|block| {
            key = self.key(key, block, &mut place);
            key
        });
        chain.collect()
    }

    pub(super) fn root(&self) -> u64 {
        self.root
    }

    /// The key of block `block` behind `parent`. `place` is a piece at or before the block's first and moves there.
    pub(super) fn key(&self, parent: u64, block: u32, place: &mut usize) -> u64 {
        let start = block * self.block_tokens;
        let end = start.saturating_add(self.block_tokens).min(self.tokens);
        while self.pieces[*place].end <= start {
            *place += 1;
        }
        key_of(parent, &self.pieces[*place..], start, end)
    }

    /// The pieces that contain the tokens of the blocks from `block` on.
    pub(super) fn pieces_from(&self, block: u32, place: usize) -> Pieces {
        let start = block * self.block_tokens;
        self.pieces[place..]
            .iter()
            .filter(|piece| piece.end > start && piece.start < self.tokens)
            .copied()
            .collect()
    }

    /// Up to which block this text equals the run of blocks `start..end`, which ends at token `token_end` and whose
    /// pieces are `label`. The first block of both is known to be equal; it begins in piece `place`.
    pub(super) fn agree(&self, label: &[Piece], start: u32, end: u32, token_end: u32, place: usize) -> u32 {
        let mut agreed = start * self.block_tokens;
        for (piece, labelled) in self.pieces[place..].iter().zip(label) {
            if !piece.agrees(labelled) {
                break;
            }
            let (ours, theirs) = (piece.end.min(self.tokens), labelled.end.min(token_end));
            agreed = ours.min(theirs);
            if ours != theirs {
                break;
            }
        }
        let both_end =
            agreed == token_end && (agreed == self.tokens || agreed.is_multiple_of(self.block_tokens));
        if both_end { end } else { agreed / self.block_tokens }
    }
}

/// The key of tokens `start..end`, which lie in `pieces` from their first on, behind `parent`.
pub(super) fn key_of(parent: u64, pieces: &[Piece], start: u32, end: u32) -> u64 {
    let (mut key, mut at) = (parent, start);
    for piece in pieces {
        let next = piece.end.min(end);
        let offset = at.wrapping_sub(piece.origin);
        key = mix(key ^ piece.content.bits(), u64::from(offset) << 32 | u64::from(next - at));
        at = next;
        if at == end {
            break;
        }
    }
    debug_assert_eq!(at, end, "the pieces contain the block");
    key
}

/// A folded 64 x 64 -> 128 bit multiplication: every input bit reaches every output bit.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0xa076_1d64_78bd_642f) * u128::from(b ^ 0xe703_7ed1_a0b4_28db);
    let folded = (product >> 64) as u64 ^ product as u64;
    folded ^ (folded >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[(u64, u32, u32)]) -> Text {
        let mut text = Text::new(7, 16);
        pieces.iter().for_each(|&(id, offset, tokens)| text.push(Content::shared(id), offset, tokens));
        text
    }

    fn shared(a: &Text, b: &Text) -> usize {
        a.block_keys().iter().zip(&b.block_keys()).take_while(|(x, y)| x == y).count()
    }

    #[test]
    fn a_partial_last_block_equals_only_itself() {
        let a = text(&[(0, 0, 40)]);
        assert_eq!((a.blocks(), shared(&a, &a)), (3, 3));
        assert_eq!(shared(&a, &text(&[(0, 0, 48)])), 2);
        assert_eq!(shared(&a, &text(&[(0, 0, 41)])), 2);
    }

    #[test]
    fn how_a_text_was_put_together_does_not_matter() {
        assert_eq!(shared(&text(&[(0, 0, 20), (0, 20, 28)]), &text(&[(0, 0, 48)])), 3);
        assert_eq!(shared(&text(&[(0, 8, 48)]), &text(&[(0, 0, 48)])), 0, "other tokens of the same content");
    }

    #[test]
    fn roots_and_block_sizes_are_worlds_of_their_own() {
        let of = |root, block_tokens| Text::of(&Prompt::of(Content::shared(0), 64), root, block_tokens);
        assert_eq!(shared(&of(1, 16), &of(2, 16)), 0);
        assert_eq!(shared(&of(1, 16), &of(1, 64)), 0);
    }

    #[test]
    fn a_cap_cuts_at_blocks() {
        let a = text(&[(0, 0, 70)]);
        assert_eq!(a.clone().capped(2).tokens(), 32);
        assert_eq!(a.clone().capped(u32::MAX).tokens(), 70);
        assert_eq!(a.full_blocks().blocks(), 4);
    }
}
