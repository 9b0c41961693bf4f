//! What a run of a program has to be given: every backend checks it in the same way.

use crate::{
    BackendError, Result,
    contract::{Binding, ProgramNeeds},
    graph::{Graph, Step},
};

/// What a program asks of its runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    buffers: Vec<Bound>,
    workspace: u64,
    alignment: u64,
    largest: Step,
}

/// What is asked of the binding of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound {
    bytes: u64,
    written: bool,
}

impl Terms {
    /// The terms of a graph that [`crate::validate::graph`] found valid, with `workspace` bytes of scratch memory whose
    /// address is a multiple of `alignment`.
    pub fn new(graph: &Graph<'_>, workspace: u64, alignment: u64) -> Terms {
        let bound = |bytes| Bound { bytes, written: false };
        let mut buffers: Vec<Bound> = graph.buffers.iter().map(|buffer| bound(buffer.bytes)).collect();
        let outputs = graph.nodes.iter().filter_map(|node| graph.tensor(node.output));
        outputs.for_each(|output| buffers[output.buffer as usize].written = true);
        Terms {
            buffers,
            workspace,
            alignment,
            largest: graph.largest_step(),
        }
    }

    /// What the program declares.
    pub fn needs(&self) -> ProgramNeeds {
        ProgramNeeds {
            workspace: self.workspace,
            ..ProgramNeeds::default()
        }
    }

    /// The number of buffers.
    pub fn buffers(&self) -> usize {
        self.buffers.len()
    }

    /// Whether the program writes a buffer.
    pub fn writes(&self, buffer: usize) -> bool {
        self.buffers[buffer].written
    }

    /// Sees to it that a run is given what it needs, before any of it is looked up; a refusal says what it lacks.
    ///
    /// What is written is bound once, since views of different buffers count as apart; so is the scratch memory.
    pub fn check(&self, step: Step, bindings: &[Binding], scratch: Binding) -> Result<()> {
        self.check_step(step)?;
        self.check_sizes(bindings)?;
        self.check_apart(bindings, scratch)
    }

    /// Sees to it that scratch memory that was bound at `address` is as declared.
    pub fn check_workspace(&self, scratch: Binding, address: u64) -> Result<()> {
        let (needed, alignment) = (self.workspace, self.alignment);
        if scratch.bytes < needed || !address.is_multiple_of(alignment) {
            return Err(BackendError::invalid(format!(
                "a workspace of {} bytes at offset {}, where {needed} bytes at a multiple of {alignment} are needed",
                scratch.bytes, scratch.offset
            )));
        }
        Ok(())
    }

    fn check_step(&self, step: Step) -> Result<()> {
        let Step { tokens, rows, .. } = self.largest;
        if step.tokens > tokens || step.rows > rows {
            return Err(BackendError::invalid(format!(
                "a step of {} tokens and {} rows in a program for {tokens} and {rows}",
                step.tokens, step.rows
            )));
        }
        Ok(())
    }

    fn check_sizes(&self, bindings: &[Binding]) -> Result<()> {
        if bindings.len() != self.buffers.len() {
            let (given, asked) = (bindings.len(), self.buffers.len());
            return Err(BackendError::invalid(format!("{given} bindings for {asked} buffers")));
        }
        let sizes = bindings
            .iter()
            .zip(&self.buffers)
            .map(|(b, bound)| (b.bytes, bound.bytes));
        match sizes.enumerate().find(|(_, (given, asked))| given < asked) {
            Some((i, (given, asked))) => Err(BackendError::invalid(format!(
                "buffer {i} is bound to {given} of {asked} bytes"
            ))),
            None => Ok(()),
        }
    }

    fn check_apart(&self, bindings: &[Binding], scratch: Binding) -> Result<()> {
        let scratch = Binding {
            bytes: self.workspace,
            ..scratch
        };
        for (i, binding) in bindings.iter().enumerate() {
            if binding.shares_bytes(&scratch) {
                let message = format!("buffer {i} is bound to bytes of the workspace");
                return Err(BackendError::invalid(message));
            }
            let mut others = bindings.iter().enumerate().filter(|(j, _)| *j != i);
            if self.writes(i) && others.any(|(_, other)| binding.shares_bytes(other)) {
                return Err(BackendError::invalid(format!(
                    "buffer {i} is written, and bound to bytes that another binding has too"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contract::BufferId,
        draft::Draft,
        graph::{Node, Role, Symbol, Tensor},
        operations::Operation,
        types::Type,
    };

    const STEP: Step = Step {
        tokens: 2,
        rows: 1,
        context: 9,
        reserved: 0,
    };

    /// y = a + b over `[4, 2]` in F32, with scratch memory of 64 bytes.
    fn terms() -> Terms {
        let mut draft = Draft::new(2, 1);
        let mut place = |role| {
            let tensor = Tensor::contiguous(Type::F32, [4, 2, 1, 1], 0, 0).unwrap();
            draft.place(role, tensor.symbolic(Symbol::Tokens, 1)).unwrap()
        };
        let operands = [place(Role::Input), place(Role::Input), place(Role::Output)];
        draft
            .nodes
            .push(Node::new(Operation::Add.id(), &operands[..2], operands[2]));
        Terms::new(&draft.graph(), 64, 32)
    }

    fn bound(buffer: u64, offset: u64, bytes: u64) -> Binding {
        Binding {
            buffer: BufferId(buffer),
            offset,
            bytes,
        }
    }

    #[track_caller]
    fn refused(result: Result<()>, message: &str) {
        assert_eq!(result.unwrap_err().message.as_str(), message);
    }

    #[test]
    fn a_graph_tells_what_is_written_and_needed() {
        let terms = terms();
        assert_eq!((terms.buffers(), terms.needs().workspace), (3, 64));
        assert_eq!([0, 1, 2].map(|i| terms.writes(i)), [false, false, true]);
    }

    #[test]
    fn what_is_read_may_be_bound_twice_and_what_is_written_may_not() {
        let (terms, scratch) = (terms(), bound(1, 128, 64));
        let check = |bindings: &[Binding]| terms.check(STEP, bindings, scratch);
        let (one, two) = (bound(1, 0, 32), bound(1, 32, 40));
        assert!(check(&[one, one, two]).is_ok());
        let twice = "buffer 2 is written, and bound to bytes that another binding has too";
        refused(check(&[one, two, bound(1, 71, 32)]), twice);
        let of_scratch = |i| format!("buffer {i} is bound to bytes of the workspace");
        refused(check(&[one, bound(1, 160, 32), two]), &of_scratch(1));
        refused(check(&[one, two, bound(1, 120, 32)]), &of_scratch(2));
        // more scratch memory than the program needs is no part of the run
        let large = bound(1, 128, 1000);
        assert!(terms.check(STEP, &[one, bound(1, 192, 32), two], large).is_ok());
    }

    #[test]
    fn what_is_bound_is_large_enough() {
        let terms = terms();
        let (one, two, short) = (bound(1, 0, 32), bound(2, 0, 32), bound(3, 0, 31));
        let check = |bindings: &[Binding]| terms.check(STEP, bindings, bound(4, 0, 64));
        refused(check(&[one, two]), "2 bindings for 3 buffers");
        refused(check(&[one, two, short]), "buffer 2 is bound to 31 of 32 bytes");
        let workspace = |scratch, address| terms.check_workspace(scratch, address);
        assert!(workspace(bound(4, 32, 64), 4096).is_ok());
        let needed = "where 64 bytes at a multiple of 32 are needed";
        let short = format!("a workspace of 63 bytes at offset 0, {needed}");
        refused(workspace(bound(4, 0, 63), 4096), &short);
        let askew = format!("a workspace of 64 bytes at offset 8, {needed}");
        refused(workspace(bound(4, 8, 64), 4104), &askew);
    }

    #[test]
    fn a_step_is_no_larger_than_the_program() {
        let terms = terms();
        let bindings = [1, 2, 3].map(|buffer| bound(buffer, 0, 32));
        for step in [Step { tokens: 3, ..STEP }, Step { rows: 2, ..STEP }] {
            let (tokens, rows) = (step.tokens, step.rows);
            let message = format!("a step of {tokens} tokens and {rows} rows in a program for 2 and 1");
            refused(terms.check(step, &bindings, bound(4, 0, 64)), &message);
        }
    }
}
