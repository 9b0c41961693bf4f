//! What was considered, and why it lost.

use super::{
    Alternative, Placement,
    refusal::devices,
    search::{Search, Tried},
};

impl Search<'_> {
    /// Says what was considered.
    pub fn explain(&self, placement: &mut Placement) {
        let used = (0..self.devices)
            .filter(|&device| placement.layers_on(device) > 0)
            .count();
        let settings = &placement.settings;
        for tried in self
            .tried
            .iter()
            .filter(|tried| tried.settings.context == settings.context)
        {
            let layers = tried.share.layers;
            let is_taken = layers == placement.layers_on_devices()
                && tried.share.experts == placement.layout.experts.map_or(0, |(count, _)| count);
            let larger_batch = is_taken && tried.devices == used;
            let all_or_one_more = layers == self.all()
                && tried.share.experts == self.wishes.experts.unwrap_or(0) as usize
                || layers == placement.layers_on_devices() + 1;
            if larger_batch || all_or_one_more && tried.settings.batch == self.least_tried(tried) {
                placement.alternatives.push(Alternative {
                    what: format!(
                        "{layers} layers on {}, batch {}",
                        devices(tried.devices),
                        tried.settings.batch
                    ),
                    why: tried.short.to_string(),
                });
            }
        }
        placement.alternatives.extend(self.notes.iter().cloned());
        placement.alternatives.dedup();
        if used < self.devices && used > 0 && !self.wishes.spread {
            placement.alternatives.push(Alternative {
                what: format!("more than {}", devices(used)),
                why: "not needed: each costs a crossing in every step (--spread takes all)".into(),
            });
        }
    }

    /// The smallest batch with which as many devices were tried.
    fn least_tried(&self, like: &Tried) -> u32 {
        let same = self
            .tried
            .iter()
            .filter(|tried| tried.devices == like.devices && tried.share == like.share);
        same.map(|tried| tried.settings.batch)
            .min()
            .unwrap_or(like.settings.batch)
    }
}
