//! The same requests with longer or shorter answers: a question of sensitivity.

use forerun_sim::request::{Labels, Request, Status};
use forerun_sim::source::{Source, SourceError};
use forerun_sim::time::Time;

/// A source whose answers are longer by a factor. What later turns of a session repeat of them stays as long as it was.
pub(crate) struct LongerAnswers<'a> {
    /// What sends them.
    pub inner: &'a mut dyn Source,
    /// Output tokens as a multiple of what they are.
    pub factor: f64,
}

impl Source for LongerAnswers<'_> {
    fn peek(&mut self) -> Result<Option<Time>, SourceError> {
        self.inner.peek()
    }

    fn pop(&mut self) -> Result<Option<Request>, SourceError> {
        let longer = |tokens: u32| ((f64::from(tokens) * self.factor).round() as u32).max(1);
        Ok(self.inner.pop()?.map(|request| Request {
            output_tokens: longer(request.output_tokens),
            max_tokens: request.max_tokens.map(longer),
            ..request
        }))
    }

    fn ended(&mut self, request: &Request, status: Status, at: Time) {
        self.inner.ended(request, status, at);
    }

    fn labels(&self) -> &Labels {
        self.inner.labels()
    }
}
