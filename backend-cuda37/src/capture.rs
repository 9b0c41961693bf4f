//! Runs that were captured: a step of the same sizes over the same memory is launched again as a whole.

use backend_api::graph::Step;

use crate::{driver::Address, resources::Recording};

/// Runs that a program remembers; the one that was not used for longest gives way.
const KEPT: usize = 8;

/// Steps of more columns are long enough to be launched kernel by kernel.
pub const MOST_COLUMNS: u32 = 8;

/// The runs of a program.
#[derive(Default)]
pub struct Captures {
    /// The last one was used last.
    runs: Vec<Run>,
    refused: bool,
}

struct Run {
    step: Step,
    addresses: Vec<Address>,
    recording: Option<Recording>,
}

/// What is known of a run.
pub enum Sight<'a> {
    /// It is not worth capturing, or was not seen before: a run that comes once is not captured.
    New,
    /// It was seen: now it is worth capturing.
    Again(&'a mut Option<Recording>),
    /// It was captured.
    Captured(&'a Recording),
}

impl Captures {
    /// What is known of a run of this step over memory at these addresses. It is known from now on.
    pub fn sight(&mut self, step: Step, addresses: &[Address]) -> Sight<'_> {
        if self.refused || step.tokens > MOST_COLUMNS {
            return Sight::New;
        }
        let known = |run: &Run| run.step == step && run.addresses == addresses;
        let Some(at) = self.runs.iter().position(known) else {
            self.remember(step, addresses);
            return Sight::New;
        };
        self.runs[at..].rotate_left(1);
        let last = self.runs.len() - 1;
        match &mut self.runs[last].recording {
            Some(recording) => Sight::Captured(recording),
            missing => Sight::Again(missing),
        }
    }

    fn remember(&mut self, step: Step, addresses: &[Address]) {
        if self.runs.len() == KEPT {
            self.runs.remove(0);
        }
        self.runs.push(Run {
            step,
            addresses: addresses.to_vec(),
            recording: None,
        });
    }

    /// Captures nothing any more: the driver cannot.
    pub fn refuse(&mut self) {
        self.runs.clear();
        self.refused = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(tokens: u32) -> Step {
        Step {
            tokens,
            ..Step::default()
        }
    }

    fn is_new(captures: &mut Captures, tokens: u32, addresses: &[Address]) -> bool {
        matches!(captures.sight(step(tokens), addresses), Sight::New)
    }

    #[test]
    fn what_was_used_last_is_kept() {
        let mut captures = Captures::default();
        assert!((0..KEPT as u64).all(|at| is_new(&mut captures, 1, &[at])));
        assert!(!is_new(&mut captures, 1, &[0]), "the first is used again");
        assert!(is_new(&mut captures, 2, &[0]), "takes the place of the second");
        assert!(!is_new(&mut captures, 1, &[0]));
        assert!(is_new(&mut captures, 1, &[1]));
    }

    #[test]
    fn long_steps_and_drivers_that_cannot_are_let_be() {
        let mut captures = Captures::default();
        assert!((0..2).all(|_| is_new(&mut captures, MOST_COLUMNS + 1, &[7])));
        assert!(is_new(&mut captures, 1, &[7]) && !is_new(&mut captures, 1, &[7]));
        captures.refuse();
        assert!((0..2).all(|_| is_new(&mut captures, 1, &[7])));
    }
}
