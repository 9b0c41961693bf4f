//! Goes through what is possible, and takes the best that fits.

use models::{architecture::Model, gguf::Gguf};

use super::{
    Alternative, ContextWish, DEFAULT_CONTEXT, Ground, LEAST_BATCH, PlaceError, Placement, Wishes, costs::Costs,
    refusal::Shortfall,
};
use crate::{
    cache::MAX_TOKENS,
    execution::{
        device::Target,
        engine::{EngineError, Settings},
    },
};

/// Crossing to another device and back costs as much time as reading this many bytes on the host: about 50 µs at 20 GB/s.
const CROSSING: u64 = 1 << 20;

/// Places a model. `usual` has all settings but the context and the batch.
pub fn place(
    file: &Gguf,
    model: &Model,
    ground: &Ground,
    wishes: &Wishes,
    usual: &Settings,
) -> Result<Placement, PlaceError> {
    let mut search = Search::new(file, model, ground, wishes, usual);
    search.check()?;
    let mut placement = match wishes.context {
        Some(ContextWish::Max) => search.longest()?,
        Some(ContextWish::Tokens(context)) => search.at(context)?,
        None => search.at(DEFAULT_CONTEXT.min(model.context()))?,
    };
    search.explain(&mut placement);
    Ok(placement)
}

/// What of a model goes to devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// Layers, the last ones; the output projection counts as one, and comes first.
    pub layers: usize,
    /// Of so many layers, the first ones, the experts stay on the host.
    pub experts: usize,
}

/// A division that did not fit.
pub(super) struct Tried {
    pub devices: usize,
    pub settings: Settings,
    pub share: Share,
    pub short: Shortfall,
}

pub(super) struct Search<'a> {
    pub file: &'a Gguf,
    pub model: &'a Model,
    pub wishes: &'a Wishes,
    usual: &'a Settings,
    pub targets: Vec<Target>,
    /// How many of the targets are devices; the host follows them.
    pub devices: usize,
    pub tried: Vec<Tried>,
    /// By context and batch.
    costs: Vec<((u32, u32), Costs)>,
    pub notes: Vec<Alternative>,
}

impl<'a> Search<'a> {
    fn new(file: &'a Gguf, model: &'a Model, ground: &Ground, wishes: &'a Wishes, usual: &'a Settings) -> Self {
        Search {
            file,
            model,
            wishes,
            usual,
            targets: ground.targets(),
            devices: ground.devices.len(),
            tried: Vec::new(),
            costs: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// The host, where parts of the model can be there: a device that uses weights where they are mapped gains nothing by it.
    pub fn host(&self) -> Option<usize> {
        let apart = self.targets.len() > self.devices && !self.targets[0].imports();
        apart.then_some(self.devices)
    }

    /// All layers, and the output projection.
    pub fn all(&self) -> usize {
        self.model.layers() + 1
    }

    pub fn settings(&self, context: u32, batch: u32) -> Settings {
        let batch = batch.min(context);
        Settings {
            context,
            batch,
            rows: self.usual.rows.min(batch),
            ahead: self.usual.ahead.min(batch - 1),
            ..self.usual.clone()
        }
    }

    /// The batches that may be chosen, the best first.
    pub fn batches(&self, context: u32) -> Vec<u32> {
        let largest = self.wishes.batch.unwrap_or(self.model.batch()).min(context);
        let halves = std::iter::successors(Some(largest), |batch| Some(batch / 2));
        let wanted = |batch: &u32| *batch == largest || *batch >= LEAST_BATCH && self.wishes.batch.is_none();
        halves.take_while(wanted).collect()
    }

    pub fn costs(&mut self, settings: &Settings) -> Result<Costs, PlaceError> {
        let key = (settings.context, settings.batch);
        if let Some((_, costs)) = self.costs.iter().find(|(known, _)| *known == key) {
            return Ok(costs.clone());
        }
        let graph = settings.graph(self.model);
        let costs = Costs::of(graph, self.model.layers(), &self.targets[0]).map_err(EngineError::Plan)?;
        self.costs.push((key, costs.clone()));
        Ok(costs)
    }

    /// The best place for this context.
    fn at(&mut self, context: u32) -> Result<Placement, PlaceError> {
        settings_are_possible(&self.settings(context, 1), self.model)?;
        let batches = self.batches(context);
        let experts = self.wishes.experts.unwrap_or(0) as usize;
        let all = self.all();
        if let Some(layers) = self.wishes.layers {
            let layers = all.min(layers as usize);
            let share = Share { layers, experts };
            let found = self.fewest(context, &batches, share)?;
            return found.ok_or(()).or_else(|()| self.refuse_layers(context, share));
        }
        let whole = Share { layers: all, experts };
        if let Some(placement) = self.fewest(context, &batches, whole)? {
            return Ok(placement);
        }
        if self.host().is_none() || !self.wishes.split.is_empty() {
            return self.refuse_all(context, whole);
        }
        self.partly(context, batches[0], experts)
    }

    /// A share on as few devices as hold it, with as large a batch as they then hold.
    fn fewest(&mut self, context: u32, batches: &[u32], share: Share) -> Result<Option<Placement>, PlaceError> {
        let least = if self.wishes.spread || !self.wishes.split.is_empty() {
            self.devices
        } else {
            1
        };
        for count in least..=self.devices {
            for &batch in batches {
                let settings = self.settings(context, batch);
                if let Some(placement) = self.fit(&settings, count, share)? {
                    return Ok(Some(placement));
                }
            }
        }
        Ok(None)
    }

    /// As much on all devices as they hold: whole layers, or all layers but experts of the first, whichever has the host read
    /// less for a token.
    fn partly(&mut self, context: u32, batch: u32, experts: usize) -> Result<Placement, PlaceError> {
        let settings = self.settings(context, batch);
        let layers = self.most_layers(&settings, experts)?;
        let with_experts = match self.wishes.experts {
            None => self.fewest_experts(&settings)?,
            Some(_) => None,
        };
        let Some(elsewhere) = with_experts else {
            return layers.ok_or(()).or_else(|()| self.refuse_host(&settings));
        };
        let costs = self.costs(&settings)?;
        let read = |share: Share| self.read_on_host(&costs, share);
        let count = elsewhere.layout.experts.map_or(0, |(count, _)| count);
        let apart = read(Share {
            layers: self.all(),
            experts: count,
        });
        let Some(layers) = layers else { return Ok(elsewhere) };
        let dropped = self.all() - layers.layers_on_devices();
        let whole = read(Share {
            layers: layers.layers_on_devices(),
            experts: 0,
        });
        let (taken, what, loses, wins) = match apart < whole {
            true => (elsewhere, format!("{dropped} whole layers on the host"), whole, apart),
            false => (
                layers,
                format!("the experts of {count} layers on the host"),
                apart,
                whole,
            ),
        };
        let why = format!(
            "the host would read {} a token, against {}",
            indicatif::HumanBytes(loses),
            indicatif::HumanBytes(wins)
        );
        self.notes.push(Alternative { what, why });
        Ok(taken)
    }

    /// Bytes that the host reads for a token, crossings counted as reading.
    fn read_on_host(&self, costs: &Costs, share: Share) -> u64 {
        let first = self.all() - share.layers;
        let dropped = (0..first.min(costs.layers.len())).map(|layer| costs.layers[layer] + costs.experts_read[layer]);
        let experts = (first..share.experts.max(first)).map(|layer| costs.experts_read[layer] + CROSSING);
        dropped.chain(experts).sum()
    }

    /// The most layers that all devices hold.
    pub fn most_layers(&mut self, settings: &Settings, experts: usize) -> Result<Option<Placement>, PlaceError> {
        let cuts = self.costs(settings)?.cuts;
        let whole = |layers: &usize| *layers < 2 || cuts.get(self.all() - layers).copied().unwrap_or(true);
        let possible: Vec<usize> = (0..=self.all()).filter(whole).collect();
        self.last_that_fits(possible.len(), |search, i| {
            let layers = possible[i];
            search.fit(settings, search.devices, Share { layers, experts })
        })
    }

    /// All layers on all devices, the experts of as few as must be on the host.
    fn fewest_experts(&mut self, settings: &Settings) -> Result<Option<Placement>, PlaceError> {
        let (most, layers) = (self.costs(settings)?.with_experts(), self.all());
        self.last_that_fits(most, |search, i| {
            let experts = most - i;
            search.fit(settings, search.devices, Share { layers, experts })
        })
    }

    /// What `fit` gives for the largest number below `count` for which it gives anything, where that has an end.
    fn last_that_fits(
        &mut self,
        count: usize,
        mut fit: impl FnMut(&mut Self, usize) -> Result<Option<Placement>, PlaceError>,
    ) -> Result<Option<Placement>, PlaceError> {
        let (mut low, mut high, mut best) = (0, count, None);
        while low < high {
            let middle = (low + high) / 2;
            match fit(self, middle)? {
                Some(placement) => (best, low) = (Some(placement), middle + 1),
                None => high = middle,
            }
        }
        Ok(best)
    }

    /// The longest context at which all that was asked for is on devices.
    fn longest(&mut self) -> Result<Placement, PlaceError> {
        let (page, trained) = (self.usual.page_tokens, self.model.context().min(MAX_TOKENS));
        let layers = self
            .wishes
            .layers
            .map_or(self.all(), |layers| self.all().min(layers as usize));
        let experts = self.wishes.experts.unwrap_or(0) as usize;
        for batch in self.batches(trained) {
            let found = self.last_that_fits(trained.div_ceil(page) as usize, |search, pages| {
                let context = ((pages as u32 + 1) * page).min(trained);
                match search.settings(context, batch).check(search.model) {
                    Ok(()) => search.fewest(context, &[batch.min(context)], Share { layers, experts }),
                    Err(_) => Ok(None),
                }
            })?;
            if let Some(placement) = found {
                return Ok(placement);
            }
        }
        self.refuse_all(page.min(trained), Share { layers, experts })
    }
}

fn settings_are_possible(settings: &Settings, model: &Model) -> Result<(), PlaceError> {
    Ok(settings.check(model).map_err(EngineError::Cache)?)
}
