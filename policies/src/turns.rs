//! Whose turn it is.

use forerun_sim::router::Endpoint;

/// Turns among alternatives. Those of one model, or of one part of split traffic, have turns of their own: what is sent
/// to others does not move them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(Vec<usize>);

impl Turns {
    /// The turn of these alternatives, which their first replica names.
    pub(crate) fn of(&mut self, endpoints: &[Endpoint]) -> &mut usize {
        let first = endpoints[0].replica.0 as usize;
        if first >= self.0.len() {
            self.0.resize(first + 1, 0);
        }
        &mut self.0[first]
    }
}
