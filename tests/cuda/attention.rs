//! Attention on the emulation against the reference, where the conformance suite does not go: long caches that are cut into
//! all parts, many columns with gaps between them, odd ratios of heads, and more sequences than columns in parts.

use std::ops::Range;

use backend_api::{
    abi_stable::std_types::RSlice,
    contract::Binding,
    draft::Draft,
    encode::encode_row,
    graph::{ABSENT, Node, Role, Step, Symbol, Tensor},
    operations::{Operation, Window, word},
    reference,
    types::Type,
};

use crate::device::{Opened, opened};

/// One step's attention.
#[derive(Clone)]
struct Scene {
    ty: Type,
    hd: u32,
    heads: u32,
    kv: u32,
    page: u32,
    /// The positions of each sequence's columns, ascending.
    columns: Vec<Vec<i32>>,
    window: Option<u32>,
    softcap: f32,
    sinks: bool,
}

impl Default for Scene {
    fn default() -> Scene {
        Scene {
            ty: Type::F32,
            hd: 64,
            heads: 4,
            kv: 2,
            page: 16,
            columns: vec![vec![0]],
            window: None,
            softcap: 0.0,
            sinks: false,
        }
    }
}

/// Numbers from about −2 to 2, drawn from a seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    fn values(&mut self, n: usize) -> Vec<f32> {
        let half = |n: u64| (n % 1001) as f32 / 500.0 - 1.0;
        (0..n).map(|_| half(self.next()) + half(self.next())).collect()
    }

    /// 0 to n − 1 in some order.
    fn shuffled(&mut self, n: u32) -> Vec<i32> {
        let mut all: Vec<i32> = (0..n as i32).collect();
        for i in (1..all.len()).rev() {
            all.swap(i, self.next() as usize % (i + 1));
        }
        all
    }
}

/// A node in a graph of its own, and what its buffers hold: one for each tensor.
struct Prepared {
    draft: Draft,
    memory: Vec<Vec<u8>>,
    output: u32,
    step: Step,
}

impl Prepared {
    fn place(&mut self, ty: Type, dims: [u32; 4], role: Role, columns: Option<u8>, bytes: Vec<u8>) -> u32 {
        let tensor = Tensor::contiguous(ty, dims, 0, 0).unwrap();
        let tensor = columns.map_or(tensor, |axis| tensor.symbolic(Symbol::Tokens, axis));
        self.memory.push(bytes);
        self.draft.place(role, tensor).unwrap()
    }

    fn numbers(&mut self, dims: [u32; 2], columns: Option<u8>, numbers: &[i32]) -> u32 {
        let bytes = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        self.place(Type::I32, [dims[0], dims[1], 1, 1], Role::Input, columns, bytes)
    }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

impl Scene {
    /// The positions that some column of a sequence sees.
    fn seen(&self, columns: &[i32], i: i32) -> bool {
        let low = |p: i32| self.window.map_or(0, |w| (p + 1 - w as i32).max(0));
        columns.iter().any(|&p| (low(p)..=p).contains(&i))
    }

    /// Random queries and cells in shuffled pages. Cells that nobody sees are garbage, pages of such cells −1.
    fn prepare(&self, seed: u64) -> Prepared {
        let mut random = Numbers(seed * 0x9E37_79B9 + 1);
        let total: u32 = self.columns.iter().map(|c| c.len() as u32).sum();
        let ends = self.columns.iter().map(|c| c.last().map_or(0, |p| p + 1) as u32);
        let blocks: Vec<u32> = ends.map(|end| end.div_ceil(self.page)).collect();
        let (count, most) = (blocks.iter().sum::<u32>(), blocks.iter().max().copied().unwrap_or(1));
        let mut pages = random.shuffled(count).into_iter();
        let (mut table, mut visible) = (
            vec![-1; (most as usize) * self.columns.len()],
            vec![false; (count * self.page) as usize],
        );
        for (s, columns) in self.columns.iter().enumerate() {
            for b in 0..blocks[s] as usize {
                let page = pages.next().unwrap();
                let first = b as i32 * self.page as i32;
                let seen = (first..first + self.page as i32).filter(|&i| self.seen(columns, i));
                for i in seen {
                    table[s * most as usize + b] = page;
                    visible[(page * self.page as i32 + i - first) as usize] = true;
                }
            }
        }
        let mut prepared = Prepared {
            draft: Draft::new(total, 1),
            memory: Vec::new(),
            output: 0,
            step: Step {
                tokens: total,
                rows: 0,
                context: 1 + self.columns.iter().flatten().max().unwrap().unsigned_abs(),
                reserved: 0,
            },
        };
        let dims = [self.hd, self.heads, total, 1];
        let q = random.values((self.hd * self.heads * total) as usize);
        let q = prepared.place(Type::F32, dims, Role::Activation, Some(2), bytes_of(&q));
        let [k, v] = [0; 2].map(|_| {
            let bytes = self.pool(&mut random, &visible);
            prepared.place(self.ty, [self.hd, self.page, self.kv, count], Role::Pool, None, bytes)
        });
        let positions = prepared.numbers([total, 1], Some(0), &self.columns.concat());
        let lengths = self.columns.iter().map(|c| c.len() as i32);
        let starts = lengths.scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        });
        let starts: Vec<i32> = [0].into_iter().chain(starts).collect();
        let starts = prepared.numbers([starts.len() as u32, 1], None, &starts);
        let table = prepared.numbers([most, self.columns.len() as u32], None, &table);
        let sinks = match self.sinks {
            true => {
                let values = random.values(self.heads as usize);
                prepared.place(Type::F32, [self.heads, 1, 1, 1], Role::Weight, None, bytes_of(&values))
            }
            false => ABSENT,
        };
        let garbage = vec![0xFF; (self.hd * self.heads * total * 4) as usize];
        prepared.output = prepared.place(Type::F32, dims, Role::Output, Some(2), garbage);
        let mut node = Node::new(
            Operation::Attention.id(),
            &[q, k, v, positions, starts, table, sinks],
            prepared.output,
        );
        node = node.with_f32(word::attention::SCALE, 1.0 / (self.hd as f32).sqrt());
        node = node.with_f32(word::attention::SOFTCAP, self.softcap);
        if let Some(w) = self.window {
            node = node
                .with(word::attention::WINDOW_KIND, Window::Sliding as u32)
                .with(word::attention::WINDOW, w);
        }
        prepared.draft.nodes.push(node);
        prepared
    }

    /// `visible` tells of cells, page by page.
    fn pool(&self, random: &mut Numbers, visible: &[bool]) -> Vec<u8> {
        let row = self.ty.row_bytes(self.hd.into()).unwrap() as usize;
        let page = |cells: &[bool]| -> Vec<u8> {
            let mut bytes = vec![0xFF; row * cells.len() * self.kv as usize];
            for (cell, row) in bytes.chunks_mut(row).enumerate() {
                let values = random.values(self.hd as usize);
                if cells[cell % cells.len()] {
                    encode_row(self.ty, &values, row).unwrap();
                }
            }
            bytes
        };
        visible.chunks(self.page as usize).flat_map(page).collect()
    }

    /// The error of the first device against the reference, as the accuracy classes count it.
    fn error(&self, on: &Opened, seed: u64) -> f64 {
        let mut prepared = self.prepare(seed);
        let found = values_of(&evaluate(on, &prepared));
        let graph = prepared.draft.graph();
        reference::run(&graph, &mut prepared.memory, &prepared.step).unwrap();
        let expected = values_of(&prepared.memory[prepared.output as usize]);
        let squares = |difference: &dyn Fn(usize) -> f64| (0..found.len()).map(|i| difference(i).powi(2)).sum::<f64>();
        let error = squares(&|i| f64::from(found[i]) - f64::from(expected[i]));
        error / squares(&|i| f64::from(expected[i]))
    }
}

fn values_of(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|word| f32::from_le_bytes(*word))
        .collect()
}

/// What the output holds after a run on a device.
fn evaluate(on: &Opened, prepared: &Prepared) -> Vec<u8> {
    let program = on.device.compile(&prepared.draft.graph()).into_result().unwrap();
    let workspace = on.device.needs(program).into_result().unwrap().workspace.max(1);
    let bind = |bytes: u64| Binding {
        buffer: on.hold(bytes),
        offset: 0,
        bytes,
    };
    let bindings: Vec<Binding> = prepared.memory.iter().map(|m| bind(m.len() as u64)).collect();
    for (binding, memory) in bindings.iter().zip(&prepared.memory) {
        on.write(binding.buffer, memory);
    }
    let scratch = bind(workspace);
    let bound = RSlice::from_slice(&bindings);
    on.device
        .run(on.queue, program, bound, scratch, prepared.step)
        .into_result()
        .unwrap();
    let output = prepared.output as usize;
    let found = on.read(bindings[output].buffer, prepared.memory[output].len());
    on.device.free_program(program).into_result().unwrap();
    for binding in bindings.iter().chain([&scratch]) {
        on.device.free(binding.buffer).into_result().unwrap();
    }
    found
}

/// Asserts that scenes are within the class of their type.
#[track_caller]
fn agrees(scenes: &[Scene]) {
    let Some(devices) = opened() else { return };
    for (seed, scene) in scenes.iter().enumerate() {
        let error = scene.error(&devices[0], seed as u64 + 1);
        let bound = match scene.ty {
            Type::F32 | Type::F16 => 1e-10,
            _ => 1e-9,
        };
        assert!(error <= bound, "scene {seed}: {error:e} exceeds {bound:e}");
    }
}

fn range(positions: Range<i32>) -> Vec<i32> {
    positions.collect()
}

#[test]
fn long_caches_are_cut_into_all_their_parts() {
    let deep = |ty, p: i32, window| Scene {
        ty,
        columns: vec![vec![p], vec![3], vec![p / 2, p / 2 + 1]],
        page: 64,
        heads: 3,
        kv: 1,
        window,
        ..Scene::default()
    };
    agrees(&[
        deep(Type::F16, 4095, None),
        deep(Type::Q8_0, 4096, None),
        deep(Type::F32, 9000, None),
        deep(Type::Q4_0, 9001, Some(4097)),
        deep(Type::F16, 8191, Some(129)),
    ]);
}

#[test]
fn many_columns_with_gaps_between_them_see_what_they_should() {
    let gaps: Vec<i32> = [3, 40, 41, 200, 201, 202, 333, 400, 470, 600, 601].into();
    let scene = |window| Scene {
        columns: vec![gaps.clone(), range(10..19)],
        window,
        sinks: true,
        softcap: 3.0,
        ..Scene::default()
    };
    agrees(&[scene(None), scene(Some(1)), scene(Some(30)), scene(Some(70))]);
}

#[test]
fn any_whole_ratio_of_heads_is_served() {
    let ratio = |ratio: u32, columns: Vec<Vec<i32>>| Scene {
        heads: ratio * 2,
        hd: 40,
        columns,
        ..Scene::default()
    };
    for n in [1, 3, 5, 7, 9, 17] {
        agrees(&[
            ratio(n, vec![range(30..33)]),
            ratio(n, vec![range(0..30), range(5..12)]),
        ]);
    }
    agrees(&[
        Scene {
            hd: 8,
            ..ratio(71, vec![range(30..43)])
        },
        Scene {
            hd: 8,
            ..ratio(71, vec![vec![50]])
        },
    ]);
}

#[test]
fn widths_of_heads_go_from_8_to_256_over_pages_of_every_type() {
    for ty in Type::CACHE {
        let step = if ty.is_quantized() { 32 } else { 56 };
        for hd in (step..=256).step_by(step as usize) {
            let scene = |columns| Scene {
                ty,
                hd,
                page: 32,
                columns,
                heads: 6,
                kv: 2,
                window: Some(50),
                ..Scene::default()
            };
            agrees(&[scene(vec![vec![65], vec![10, 11]]), scene(vec![range(60..75)])]);
        }
    }
}

#[test]
fn each_of_many_sequences_may_want_one_column() {
    let columns = (0..13).map(|s| vec![s * 37 % 150]).collect();
    agrees(&[Scene {
        columns,
        ..Scene::default()
    }]);
}

#[test]
fn a_column_in_parts_has_the_same_bits_beside_others() {
    let Some(devices) = opened() else { return };
    let base = Scene {
        ty: Type::F16,
        columns: vec![range(700..708)],
        page: 32,
        heads: 7,
        kv: 1,
        ..Scene::default()
    };
    let all = base.prepare(5);
    let together = evaluate(&devices[0], &all);
    let column = (base.hd * base.heads * 4) as usize;
    for t in 0..8 {
        let mut alone = base.prepare(5);
        // the first column stands for column t
        let q: Vec<u8> = alone.memory[0][t * column..][..column].to_vec();
        alone.memory[0][..column].copy_from_slice(&q);
        alone.memory[3][..4].copy_from_slice(&(700 + t as i32).to_le_bytes());
        alone.memory[4][4..8].copy_from_slice(&1i32.to_le_bytes());
        alone.step = Step {
            tokens: 1,
            context: 701 + t as u32,
            ..alone.step
        };
        let found = evaluate(&devices[0], &alone);
        assert!(found[..column] == together[t * column..][..column], "column {t}");
    }
}

#[test]
fn the_workspace_does_not_grow_with_the_context_nor_with_the_columns() {
    let Some(devices) = opened() else { return };
    let needs = |scene: &Scene| {
        let program = devices[0]
            .device
            .compile(&scene.prepare(1).draft.graph())
            .into_result()
            .unwrap();
        devices[0].device.needs(program).into_result().unwrap().workspace
    };
    let short = Scene {
        columns: vec![range(0..8)],
        ..Scene::default()
    };
    let long = Scene {
        columns: vec![range(3000..3100)],
        ..Scene::default()
    };
    assert_eq!(needs(&short), needs(&long));
    assert!(needs(&short) > 0);
}
