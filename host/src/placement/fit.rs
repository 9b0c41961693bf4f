//! Whether a share of a model fits devices: divided, laid out and planned.

use std::ops::Range;

use super::{
    ContextWish, PlaceError, Placement,
    costs::Costs,
    partition::Division,
    refusal::Shortfall,
    room,
    search::{Search, Share, Tried},
};
use crate::execution::{
    Plan,
    engine::{Settings, plan_on},
    layout::Layout,
};

/// How often a division is made anew with what the plan of the one before says that devices need of their own.
const REFINEMENTS: usize = 6;

impl Search<'_> {
    /// A share on the `count` devices with the most room, if the exact plan fits them.
    pub fn fit(&mut self, settings: &Settings, count: usize, share: Share) -> Result<Option<Placement>, PlaceError> {
        let costs = self.costs(settings)?;
        let chosen = self.roomiest(count);
        let mut short = None;
        for cuts in self.possible_cuts(&costs) {
            match self.fit_with(settings, &costs, &cuts, &chosen, share)? {
                Ok(placement) => return Ok(Some(placement)),
                Err(shortfall) => short = Some(shortfall),
            }
        }
        self.tried.extend(short.map(|short| Tried {
            devices: count,
            settings: settings.clone(),
            share,
            short,
        }));
        Ok(None)
    }

    /// Layers that share a cache stay together, if that can be.
    fn possible_cuts(&self, costs: &Costs) -> Vec<Vec<bool>> {
        let everywhere = vec![true; costs.cuts.len()];
        match costs.cuts == everywhere || self.devices == 1 {
            true => vec![everywhere],
            false => vec![costs.cuts.clone(), everywhere],
        }
    }

    /// A share among `chosen`: divided by what its parts take by themselves at first, then by what plans say that devices need
    /// beside. Of what fits, the last is the most even.
    fn fit_with(
        &self,
        settings: &Settings,
        costs: &Costs,
        cuts: &[bool],
        chosen: &[usize],
        share: Share,
    ) -> Result<Result<Placement, Shortfall>, PlaceError> {
        let rooms: Vec<u64> = chosen.iter().map(|&device| self.room(device)).collect();
        let first = self.all() - share.layers.max(1);
        let layers: Vec<u64> = (first..costs.layers.len())
            .map(|layer| costs.layer(layer, share.experts))
            .collect();
        let mut division = Division {
            layers: &layers,
            cuts: &cuts[first..],
            before: if first == 0 { costs.before } else { 0 },
            output: if share.layers > 0 { costs.output } else { 0 },
            rooms: &rooms,
            overheads: vec![0; chosen.len()],
            each: self.wishes.spread && layers.len() + 1 >= chosen.len(),
        };
        let mut outcome = None;
        for _ in 0..REFINEMENTS {
            let Some(ranges) = self.divided(&division) else {
                let short = Shortfall::of_all(division.total(), rooms.iter().sum());
                return Ok(outcome.unwrap_or(Err(short)));
            };
            let layout = self.layout(costs, chosen, &ranges, share);
            let placement = self.planned(settings, layout)?;
            let beside = |(i, &device): (usize, &usize)| {
                let own = division.own(&ranges, i);
                placement.planned_on(device).saturating_sub(own)
            };
            let overheads: Vec<u64> = chosen.iter().enumerate().map(beside).collect();
            let is_last = overheads == division.overheads || chosen.len() == 1 || !self.wishes.split.is_empty();
            division.overheads = overheads;
            outcome = match (self.missing(&placement), outcome) {
                (None, _) => Some(Ok(placement)),
                (Some(_), Some(before)) => Some(before),
                (Some(short), None) => Some(Err(short)),
            };
            if is_last {
                break;
            }
        }
        Ok(outcome.unwrap_or(Err(Shortfall::of_all(division.total(), rooms.iter().sum()))))
    }

    fn planned(&self, settings: &Settings, layout: Layout) -> Result<Placement, PlaceError> {
        Ok(Placement {
            settings: settings.clone(),
            plan: plan_on(self.file, self.model, settings, &self.targets, &layout)?,
            targets: self.targets.clone(),
            devices: self.devices,
            host: self.host(),
            layout,
            alternatives: Vec::new(),
        })
    }

    /// What the first device lacks whose share exceeds its room.
    fn missing(&self, placement: &Placement) -> Option<Shortfall> {
        let on = |target: usize| {
            let planned = placement.planned_on(target) + self.mapped(&placement.plan, target);
            Shortfall::on(&self.targets[target], planned, self.room(target))
        };
        (0..self.targets.len()).find_map(on)
    }

    /// Bytes of mapped weights that must have room beside what is planned: where the context is to be as long as can be, or
    /// it would drive them out of memory. What was asked for in numbers is done.
    pub fn mapped(&self, plan: &Plan, target: usize) -> u64 {
        let of = plan.devices.iter().find(|device| device.index == target);
        of.filter(|_| self.is_for_longest()).map_or(0, |device| device.mapped)
    }

    fn is_for_longest(&self) -> bool {
        self.wishes.context == Some(ContextWish::Max)
    }

    fn divided(&self, division: &Division<'_>) -> Option<Vec<Range<usize>>> {
        match self.wishes.split.as_slice() {
            [] => division.balanced(),
            shares => Some(proportional(division.layers.len(), shares)),
        }
    }

    fn layout(&self, costs: &Costs, chosen: &[usize], ranges: &[Range<usize>], share: Share) -> Layout {
        let first = self.all() - share.layers.max(1);
        let host = self.host().unwrap_or(0);
        let mut layout = Layout {
            layers: vec![host; costs.layers.len()],
            output: host,
            lookup: host,
            experts: (share.experts > 0).then_some((share.experts, host)),
        };
        if share.layers == 0 {
            return layout;
        }
        for (&device, range) in chosen.iter().zip(ranges) {
            layout.layers[first + range.start..first + range.end].fill(device);
        }
        layout.output = chosen[chosen.len() - 1];
        let start = layout.layers.first().copied().unwrap_or(layout.output);
        if self.host().is_none() || costs.tied && start == layout.output && self.host() != Some(start) {
            layout.lookup = start;
        }
        layout
    }

    /// The `count` devices with the most room, in their order.
    fn roomiest(&self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.devices).collect();
        order.sort_by_key(|&device| std::cmp::Reverse(self.room(device)));
        order.truncate(count);
        order.sort_unstable();
        order
    }

    pub fn room(&self, target: usize) -> u64 {
        let is_device = target < self.devices;
        let reserve = if is_device { self.wishes.reserve } else { 0 };
        let (of, room) = (&self.targets[target], room(&self.targets[target], reserve));
        match of.imports() && self.is_for_longest() {
            true => room.min(of.info.free.saturating_sub(reserve)),
            false => room,
        }
    }
}

/// Contiguous runs of `layers` layers in proportion to `shares`.
fn proportional(layers: usize, shares: &[u32]) -> Vec<Range<usize>> {
    let total: u64 = shares.iter().map(|&share| u64::from(share)).sum();
    let mut sum = 0;
    let mut end_of = |share: &u32| {
        sum += u64::from(*share);
        ((layers as u64 * sum * 2 + total) / (total * 2)) as usize
    };
    let ends: Vec<usize> = shares.iter().map(&mut end_of).collect();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts
        .zip(ends.iter().copied())
        .map(|(start, end)| start..end)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::proportional;

    #[test]
    fn layers_are_divided_in_proportion() {
        assert_eq!(proportional(28, &[3, 1]), [0..21, 21..28]);
        assert_eq!(proportional(5, &[1, 1]), [0..3, 3..5]);
        assert_eq!(proportional(5, &[0, 1, 0]), [0..0, 0..5, 5..5]);
    }
}
