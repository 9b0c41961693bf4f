//! A backend made of the reference, and the place where faults are put into it.

use std::{
    marker::PhantomData,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    contract::*,
    draft::Draft,
    error::{BackendError, Result},
    graph::{Graph, Node, Step, Tensor},
    plugin::{Backend, Device, Handles},
    reference, validate,
};

/// How a double differs from a right backend; by default, it does not.
pub trait Fault: Send + Sync + 'static {
    /// Computes a node. Each buffer has what is bound and up to 8 bytes after it.
    fn evaluate(graph: &Graph<'_>, node: &Node, buffers: &mut [Vec<u8>], step: &Step) -> Result<()> {
        reference::evaluate(graph, node, buffers, step)
    }

    fn supports(graph: &Graph<'_>, node: &Node) -> Result<()> {
        validate::node(graph, node).map(drop)
    }

    fn workspace(graph: &Graph<'_>, node: &Node) -> u64 {
        let tensor = graph.tensor(node.output);
        tensor.and_then(Tensor::extent).unwrap_or(0) / 4 * 4
    }

    /// What `needs` says of the largest workspace.
    fn needs(workspace: u64) -> u64 {
        workspace
    }

    /// What a run leaves in its workspace and up to 8 bytes after it.
    fn scratch(memory: &mut [u8], _workspace: u64) {
        memory[..0].fill(0);
    }

    /// Whether ranges and handles go unchecked.
    const LENIENT: bool = false;
}

/// No fault.
pub struct Right;

impl Fault for Right {}

/// The reference as a backend, with a fault.
pub struct Double<F>(PhantomData<F>);

impl<F: Fault> Backend for Double<F> {
    const NAME: &'static str = "double";
    const VERSION: &'static str = "1";

    fn score(_: HostServices) -> Result<Score> {
        Ok(Score {
            value: 1.0,
            reason: "for tests".into(),
        })
    }

    fn devices(_: HostServices) -> Result<Vec<DeviceInfo>> {
        Ok(vec![DeviceInfo {
            id: 0,
            kind: DeviceKind::Cpu as u32,
            name: "the reference".into(),
            total: 1 << 30,
            free: 1 << 30,
            flags: flags::IMPORTS,
            capability: 0,
            reserved: [0; 6],
        }])
    }

    fn open(_: HostServices, _: u32, _: &OpenOptions) -> Result<Box<dyn Device>> {
        Ok(Box::new(Open::<F> {
            buffers: Handles::new("buffer"),
            programs: Handles::new("program"),
            fault: PhantomData,
        }))
    }

    fn supports(_: &DeviceInfo, graph: &Graph<'_>, node: &Node) -> Result<()> {
        F::supports(graph, node)
    }

    fn workspace(_: &DeviceInfo, graph: &Graph<'_>, node: &Node) -> Result<u64> {
        Ok(F::workspace(graph, node))
    }
}

struct Program {
    draft: Draft,
    workspace: u64,
}

struct Open<F> {
    buffers: Handles<Mutex<Vec<u8>>>,
    programs: Handles<Program>,
    fault: PhantomData<F>,
}

fn lock(buffer: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn range(memory: &[u8], offset: u64, bytes: u64) -> Result<std::ops::Range<usize>> {
    let end = offset.checked_add(bytes).filter(|&end| end <= memory.len() as u64);
    let end = end.ok_or_else(|| BackendError::invalid(format!("{bytes} bytes at {offset} of {}", memory.len())))?;
    Ok(offset as usize..end as usize)
}

/// Bytes past the bound ones that a fault may reach.
const BEYOND: u64 = 8;

impl<F: Fault> Open<F> {
    fn bound(&self, binding: &Binding) -> Result<Vec<u8>> {
        let buffer = self.buffers.get(binding.buffer.0)?;
        let memory = lock(&buffer);
        range(&memory, binding.offset, binding.bytes)?;
        let end = (binding.offset + binding.bytes + BEYOND).min(memory.len() as u64) as usize;
        Ok(memory[binding.offset as usize..end].to_vec())
    }

    fn put_back(&self, binding: &Binding, bytes: &[u8]) -> Result<()> {
        let buffer = self.buffers.get(binding.buffer.0)?;
        let at = binding.offset as usize;
        lock(&buffer)[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

impl<F: Fault> Device for Open<F> {
    fn allocate(&self, bytes: u64) -> Result<BufferId> {
        Ok(BufferId(self.buffers.insert(Mutex::new(vec![0xa5; bytes as usize]))))
    }
    fn free(&self, buffer: BufferId) -> Result<()> {
        match self.buffers.remove(buffer.0) {
            Err(e) if !F::LENIENT => Err(e),
            _ => Ok(()),
        }
    }
    fn write(&self, _: QueueId, buffer: BufferId, offset: u64, data: &[u8]) -> Result<()> {
        let buffer = self.buffers.get(buffer.0)?;
        let mut memory = lock(&buffer);
        let range = match range(&memory, offset, data.len() as u64) {
            Err(_) if F::LENIENT => return Ok(()),
            other => other?,
        };
        memory[range].copy_from_slice(data);
        Ok(())
    }
    fn read(&self, _: QueueId, buffer: BufferId, offset: u64, data: &mut [u8]) -> Result<()> {
        let buffer = self.buffers.get(buffer.0)?;
        let memory = lock(&buffer);
        data.copy_from_slice(&memory[range(&memory, offset, data.len() as u64)?]);
        Ok(())
    }
    unsafe fn import(&self, memory: &[u8]) -> Result<BufferId> {
        Ok(BufferId(self.buffers.insert(Mutex::new(memory.to_vec()))))
    }
    fn compile(&self, graph: &Graph<'_>) -> Result<ProgramId> {
        let mut draft = Draft::new(graph.tokens, graph.rows);
        draft.tensors = graph.tensors.to_vec();
        draft.nodes = graph.nodes.to_vec();
        draft.buffers = graph.buffers.to_vec();
        let workspace = graph.nodes.iter().map(|n| F::workspace(graph, n)).max().unwrap_or(0);
        Ok(ProgramId(self.programs.insert(Program { draft, workspace })))
    }
    fn needs(&self, program: ProgramId) -> Result<ProgramNeeds> {
        Ok(ProgramNeeds {
            workspace: F::needs(self.programs.get(program.0)?.workspace),
            ..ProgramNeeds::default()
        })
    }
    fn free_program(&self, program: ProgramId) -> Result<()> {
        self.programs.remove(program.0).map(drop)
    }
    fn run(&self, _: QueueId, program: ProgramId, bindings: &[Binding], workspace: Binding, step: Step) -> Result<()> {
        let program = self.programs.get(program.0)?;
        let graph = program.draft.graph();
        let mut buffers = bindings.iter().map(|b| self.bound(b)).collect::<Result<Vec<_>>>()?;
        let short = |(b, bound): (&crate::graph::Buffer, &Binding)| bound.bytes < b.bytes;
        if buffers.len() != graph.buffers.len() || graph.buffers.iter().zip(bindings).any(short) {
            return Err(BackendError::invalid("the bindings are not those of the graph"));
        }
        let mut scratch = self.bound(&workspace)?;
        F::scratch(&mut scratch, workspace.bytes);
        self.put_back(&workspace, &scratch)?;
        for node in graph.nodes {
            F::evaluate(&graph, node, &mut buffers, &step)?;
        }
        bindings
            .iter()
            .zip(&buffers)
            .try_for_each(|(b, bytes)| self.put_back(b, bytes))
    }
    fn free_memory(&self) -> Result<u64> {
        Ok(1 << 30)
    }
}
