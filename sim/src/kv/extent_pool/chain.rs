//! What the pool knows of one request: its text, and how far it is held and registered.

use std::hash::{Hash, Hasher};

use super::copies::CopyId;
use super::tree::NodeId;
use crate::kv::TokenSource;
use crate::prompt::{Content, Prompt};

/// The blocks of one request.
///
/// They are, in order of position: `attached` blocks that it found, blocks that it registered itself, and blocks
/// that are not registered yet.
#[derive(Clone, Debug)]
pub struct ExtentChain {
    pub(super) text: Text,
    /// The key of the node that begins its text, in every pool.
    head: u64,
    pub(super) block_tokens: u32,
    /// Tokens whose identity was asked for: what lookups in other pools may compare.
    learned: u32,
    pub(super) held: u32,
    pub(super) attached: u32,
    pub(super) registered: u32,
    /// The node that ends with the last registered block.
    pub(super) node: NodeId,
    /// Its number among the chains that registered blocks, 0 before; a new one after each release.
    pub(super) owner: u32,
    /// The last copy that it made of somebody else's blocks: likely still the one, however many came after it.
    pub(super) copy: CopyId,
    /// A place in its text at or before the last registered block's end.
    pub(super) cursor: Cursor,
}

impl ExtentChain {
    pub(super) fn new(tokens: &TokenSource, block_tokens: u32) -> Self {
        let text = Text { prompt: tokens.prompt.clone(), output: tokens.output };
        let root = mix(tokens.salt, tokens.adapter.map_or(0, |id| u64::from(id) + 1));
        Self {
            head: block_key(root, text.pieces(Cursor::default()), 0, block_tokens),
            block_tokens,
            learned: tokens.prompt.tokens(),
            text,
            held: 0,
            attached: 0,
            registered: 0,
            node: 0,
            owner: 0,
            copy: 0,
            cursor: Cursor::default(),
        }
    }

    pub(super) fn learn(&mut self, known: u32) {
        self.learned = self.learned.max(known);
    }

    /// Leading blocks that are full of learned tokens.
    pub(super) fn full_blocks(&self) -> u32 {
        self.learned / self.block_tokens
    }

    /// It holds nothing any more.
    pub(super) fn forget(&mut self) {
        (self.held, self.attached, self.registered) = (0, 0, 0);
        (self.node, self.owner, self.copy, self.cursor) = (0, 0, 0, Cursor::default());
    }

    /// The key of the node that continues `parent` with this text's block at `cursor`, which starts at token
    /// `start`.
    pub(super) fn key(&self, parent: NodeId, cursor: Cursor, start: u32) -> u64 {
        if parent == 0 {
            return self.head;
        }
        block_key(identity(parent), self.text.pieces(cursor), start, self.block_tokens)
    }
}

/// A prompt and what follows it.
#[derive(Clone, Debug)]
pub(super) struct Text {
    prompt: Prompt,
    output: Content,
}

/// Tokens `start..end` of a text: one content, from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) content: Content,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Piece {
    /// Whether both are cuts of the same content at the same place.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        self.content == other.content && self.start == other.start
    }
}

/// A piece of a text, by number and first token.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    segment: u32,
    start: u32,
}

impl Cursor {
    /// Goes to the piece after `piece`, which is the one it is at.
    pub(super) fn pass(&mut self, piece: &Piece) {
        self.segment += 1;
        self.start = piece.end;
    }

    /// Goes to the piece of `text` that contains `token`.
    pub(super) fn seek(&mut self, text: &Text, token: u32) {
        while self.start > token {
            self.segment -= 1;
            self.start -= text.prompt.segments()[self.segment as usize].tokens;
        }
        loop {
            let piece = text.piece(*self);
            if token < piece.end {
                break;
            }
            self.pass(&piece);
        }
    }
}

impl Text {
    /// The piece at `cursor`. What follows the prompt is one piece without end.
    pub(super) fn piece(&self, cursor: Cursor) -> Piece {
        let (start, segment) = (cursor.start, self.prompt.segments().get(cursor.segment as usize));
        match segment {
            Some(segment) => Piece { content: segment.content, start, end: start + segment.tokens },
            None => Piece { content: self.output, start, end: u32::MAX },
        }
    }

    /// The pieces from `cursor` on, to the endless last one.
    pub(super) fn pieces(&self, cursor: Cursor) -> impl Iterator<Item = Piece> + '_ {
        let first = self.piece(cursor);
        let mut cursor = cursor;
        std::iter::successors(Some(first), move |piece| {
            cursor.pass(piece);
            (piece.end < u32::MAX).then(|| self.piece(cursor))
        })
    }
}

/// Identity of a node as a parent.
pub(super) fn identity(node: NodeId) -> u64 {
    mix(u64::from(node), 0x243f_6a88_85a3_08d3)
}

/// The key of a node under `parent`: its first block, at `start`, which lies in `pieces` from their first on.
pub(super) fn block_key(
    parent: u64,
    pieces: impl Iterator<Item = Piece>,
    start: u32,
    block_tokens: u32,
) -> u64 {
    let (mut key, mut at, end) = (parent, start, start + block_tokens);
    for piece in pieces {
        let next = piece.end.min(end);
        key = mix(key ^ number(piece.content), u64::from(at - piece.start) << 32 | u64::from(next - at));
        at = next;
        if at == end {
            break;
        }
    }
    debug_assert_eq!(at, end, "the pieces contain the block");
    key
}

/// The number of a content, which only shows it to hashers.
fn number(content: Content) -> u64 {
    struct Number(u64);
    impl Hasher for Number {
        fn write(&mut self, _: &[u8]) {
            unreachable!("a content is one number");
        }
        fn write_u64(&mut self, number: u64) {
            self.0 = number;
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut number = Number(0);
    content.hash(&mut number);
    number.finish()
}

/// A folded 64 x 64 -> 128 bit multiplication: every input bit reaches every output bit.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0xa076_1d64_78bd_642f) * u128::from(b ^ 0xe703_7ed1_a0b4_28db);
    let folded = (product >> 64) as u64 ^ product as u64;
    folded ^ (folded >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
