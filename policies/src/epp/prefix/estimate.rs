//! The `estimate` backend of `token-producer`: no tokenizer, four bytes of text are one pseudo-token.

use forerun_sim::prompt::Prompt;

use super::text::Text;

/// Bytes of a pseudo-token.
pub const BYTES_PER_PSEUDO_TOKEN: u32 = 4;

/// The pseudo-tokens of a text: its bytes in groups of four, little-endian, the last one padded with zeros.
/// Source: recordings of llm-d-router at ebab6879.
#[must_use]
pub fn pseudo_tokens(text: &[u8]) -> Vec<u32> {
    let group = |bytes: &[u8]| bytes.iter().rev().fold(0, |token, &byte| token << 8 | u32::from(byte));
    text.chunks(BYTES_PER_PSEUDO_TOKEN as usize).map(group).collect()
}

/// The text of a prompt as the `estimate` backend delivers it, when a real token is `bytes_per_token` bytes long on
/// average (English prose: about 4). What a pseudo-token shares with two segments counts as the later one's: a shared
/// prefix is at most one pseudo-token shorter than its bytes.
#[must_use]
pub fn text_of(prompt: &Prompt, root: u64, block_tokens: u32, bytes_per_token: f64) -> Text {
    let pseudo_tokens = |tokens: u64| {
        let bytes = tokens as f64 * bytes_per_token;
        (bytes / f64::from(BYTES_PER_PSEUDO_TOKEN)) as u32
    };
    let mut text = Text::new(root, block_tokens);
    let mut tokens = 0;
    for segment in prompt.segments() {
        tokens += u64::from(segment.tokens);
        let end = pseudo_tokens(tokens);
        text.push(segment.content, 0, end - text.tokens());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_sim::prompt::Content;

    #[test]
    fn four_bytes_are_one_pseudo_token() {
        assert_eq!(pseudo_tokens(b"abcde"), [u32::from_le_bytes(*b"abcd"), u32::from(b'e')]);
        assert!(pseudo_tokens(b"").is_empty());
    }

    #[test]
    fn a_shared_prefix_stays_shared_at_any_length_of_tokens() {
        for bytes_per_token in [2.5, 4.0, 4.7] {
            let of = |own| {
                let mut prompt = Prompt::of(Content::shared(0), 1_000);
                prompt.push(Content::private(own), 500);
                text_of(&prompt, 0, 64, bytes_per_token)
            };
            let (a, b) = (of(1).block_keys(), of(2).block_keys());
            let shared = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
            assert_eq!(shared, (1_000.0 * bytes_per_token / 4.0 / 64.0) as usize);
            assert_eq!(of(1).tokens(), (1_500.0 * bytes_per_token / 4.0) as u32);
        }
    }
}
