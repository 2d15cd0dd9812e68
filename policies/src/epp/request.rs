//! What the router sees of a request.

use forerun_sim::prompt::Prompt;
use forerun_sim::request::{Label, RequestId};

/// A request as its headers and body show it to the router. It borrows: making one costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Which request.
    pub id: RequestId,
    /// The target model: the adapter's name where the request names one, else the model's.
    pub model: Label,
    /// The prompt, as the token producer delivers it. An empty one stands for a request without tokens.
    pub prompt: &'a Prompt,
    /// The client's `max_tokens`.
    pub max_tokens: Option<u32>,
    /// The request's priority in llm-d's sense: higher is served first, negative ones may be shed.
    pub priority: i32,
    /// Headers, their names in lower case. Few: those that some plugin reads.
    pub headers: &'a [(&'a str, &'a str)],
}

impl<'a> RequestView<'a> {
    /// Length of the prompt in tokens.
    #[must_use]
    pub fn prompt_tokens(&self) -> u64 {
        u64::from(self.prompt.tokens())
    }

    /// The value of a header; `name` is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(key, _)| *key == name).map(|&(_, value)| value)
    }
}
