//! Attention on the emulation against the reference, where the conformance suite does not go: long caches that are cut into
//! all parts, many columns with gaps between them, odd ratios of heads, and more sequences than columns in parts.

use std::ops::Range;

use backend_api::{
    encode::encode_row,
    graph::{ABSENT, Role},
    operations::{Operation, Window, word},
    types::Type,
};

use crate::{
    device::opened,
    single::{Numbers, Single},
};

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

/// Where positions are.
struct Paged {
    /// `[most, S]`; −1 for pages that nobody sees.
    table: Vec<i32>,
    /// Which cells somebody sees, page by page.
    visible: Vec<bool>,
    /// Pages of the longest sequence.
    most: u32,
}

impl Scene {
    /// The positions that some column of a sequence sees.
    fn seen(&self, columns: &[i32], i: i32) -> bool {
        let low = |p: i32| self.window.map_or(0, |w| (p + 1 - w as i32).max(0));
        columns.iter().any(|&p| (low(p)..=p).contains(&i))
    }

    /// Random queries and cells in shuffled pages. Cells that nobody sees are garbage, pages of such cells −1.
    fn prepare(&self, seed: u64) -> Single {
        let mut random = Numbers::new(seed);
        let total: u32 = self.columns.iter().map(|c| c.len() as u32).sum();
        let last = self.columns.iter().flatten().max().unwrap().unsigned_abs();
        let Paged { table, visible, most } = self.pages(&mut random);
        let mut single = Single::new(total, last + 1);
        let dims = [self.hd, self.heads, total];
        let q = random.values(dims.iter().product());
        let q = single.values(Role::Activation, &dims, Some(2), &q);
        let pages = visible.len() as u32 / self.page;
        let [k, v] = [0; 2].map(|_| {
            let bytes = self.pool(&mut random, &visible);
            single.place(Role::Pool, self.ty, &[self.hd, self.page, self.kv, pages], None, bytes)
        });
        let positions = single.ids(&[total], Some(0), &self.columns.concat());
        let mut starts = vec![0];
        for columns in &self.columns {
            starts.push(starts[starts.len() - 1] + columns.len() as i32);
        }
        let starts = single.ids(&[starts.len() as u32], None, &starts);
        let table = single.ids(&[most, self.columns.len() as u32], None, &table);
        let sinks = match self.sinks {
            true => single.values(Role::Weight, &[self.heads], None, &random.values(self.heads)),
            false => ABSENT,
        };
        let inputs = [q, k, v, positions, starts, table, sinks];
        let node = single.node(Operation::Attention, &inputs, Type::F32, &dims, 2);
        let scale = 1.0 / (self.hd as f32).sqrt();
        *node = node.with_f32(word::attention::SCALE, scale);
        *node = node.with_f32(word::attention::SOFTCAP, self.softcap);
        if let Some(w) = self.window {
            *node = node.with(word::attention::WINDOW_KIND, Window::Sliding as u32);
            *node = node.with(word::attention::WINDOW, w);
        }
        single
    }

    /// Pages in some order for the positions of every sequence.
    fn pages(&self, random: &mut Numbers) -> Paged {
        let ends = self.columns.iter().map(|c| c.last().map_or(0, |p| p + 1) as u32);
        let blocks: Vec<u32> = ends.map(|end| end.div_ceil(self.page)).collect();
        let most = blocks.iter().max().copied().unwrap_or(1);
        let count = blocks.iter().sum::<u32>();
        let mut free = random.shuffled(count).into_iter();
        let mut paged = Paged {
            table: vec![-1; most as usize * self.columns.len()],
            visible: vec![false; (count * self.page) as usize],
            most,
        };
        for (s, columns) in self.columns.iter().enumerate() {
            for (b, page) in (0..blocks[s] as usize).zip(free.by_ref()) {
                let first = b as i32 * self.page as i32;
                for i in (0..self.page as i32).filter(|i| self.seen(columns, first + i)) {
                    paged.table[s * most as usize + b] = page;
                    paged.visible[(page * self.page as i32 + i) as usize] = true;
                }
            }
        }
        paged
    }

    /// `visible` tells of cells, page by page.
    fn pool(&self, random: &mut Numbers, visible: &[bool]) -> Vec<u8> {
        let row = self.ty.row_bytes(self.hd.into()).unwrap() as usize;
        let page = |cells: &[bool]| -> Vec<u8> {
            let mut bytes = vec![0xFF; row * cells.len() * self.kv as usize];
            for (cell, row) in bytes.chunks_mut(row).enumerate() {
                let values = random.values(self.hd);
                if cells[cell % cells.len()] {
                    encode_row(self.ty, &values, row).unwrap();
                }
            }
            bytes
        };
        visible.chunks(self.page as usize).flat_map(page).collect()
    }
}

/// Asserts that scenes are within the class of their type.
#[track_caller]
fn agrees(scenes: &[Scene]) {
    let Some(devices) = opened() else { return };
    for (seed, scene) in scenes.iter().enumerate() {
        let error = scene.prepare(seed as u64 + 1).error(&devices[0]);
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
fn tiles_of_few_columns_share_a_long_cache() {
    let scene = |ty, hd, window, sinks| Scene {
        ty,
        hd,
        columns: vec![range(3000..3020), range(100..103), range(0..2)],
        page: 64,
        heads: 3,
        kv: 1,
        window,
        sinks,
        ..Scene::default()
    };
    agrees(&[
        scene(Type::F16, 64, None, true),
        scene(Type::F32, 256, None, false),
        scene(Type::Q8_0, 128, Some(1500), true),
        scene(Type::F16, 40, Some(700), false),
    ]);
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
    let together = all.on(&devices[0]);
    let column = (base.hd * base.heads * 4) as usize;
    for t in 0..8 {
        let mut alone = base.prepare(5);
        // the first column stands for column t
        let q: Vec<u8> = alone.memory[0][t * column..][..column].to_vec();
        alone.memory[0][..column].copy_from_slice(&q);
        alone.memory[3][..4].copy_from_slice(&(700 + t as i32).to_le_bytes());
        alone.memory[4][4..8].copy_from_slice(&1i32.to_le_bytes());
        (alone.step.tokens, alone.step.context) = (1, 701 + t as u32);
        let found = alone.on(&devices[0]);
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
