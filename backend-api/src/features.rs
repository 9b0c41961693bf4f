//! The interface `graft.features/1` of `query`: the sets of a processor's features that a backend's kernels are made for, and
//! the choice of one of them.
//!
//! An author implements [`HasFeatures`] and gives out `Features::of::<MyFeatures>()` from [`crate::plugin::Backend::query`];
//! who asks takes [`Features::find`].

use abi_stable::std_types::{RStr, RString, RVec};

use crate::{
    contract::{BackendModule, Interface, Outcome},
    error::Result,
    plugin::guard,
};

/// The interface's name.
pub const NAME: &str = "graft.features/1";

/// The author's side.
pub trait HasFeatures: 'static {
    /// The names of the sets that this machine has, the best one last; never none.
    fn available() -> Result<Vec<String>>;
    /// Lets devices that are opened from now on, and answers about them, go by this set and no better one. Refused where it
    /// is not available; then nothing has changed.
    fn select(name: &str) -> Result<()>;
}

/// The table of functions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Features {
    available: extern "C" fn() -> Outcome<RVec<RString>>,
    select: extern "C" fn(name: RStr<'_>) -> Outcome<()>,
}

impl Features {
    /// The interface that an author's functions make.
    pub fn of<F: HasFeatures>() -> Interface {
        const { assert!(size_of::<Features>() < 1 << 16) };
        Interface {
            version: 1,
            bytes: size_of::<Features>() as u64,
            table: std::ptr::from_ref(const { &Features::table::<F>() }).cast(),
        }
    }

    const fn table<F: HasFeatures>() -> Features {
        Features {
            available: available::<F>,
            select: select::<F>,
        }
    }

    /// The interface of a backend, if it has it.
    pub fn find(module: BackendModule) -> Option<Features> {
        let interface = module.query()(RStr::from(NAME)).into_option()?;
        let fits = interface.version == 1 && interface.bytes >= size_of::<Features>() as u64;
        let table = interface.table.cast::<Features>();
        // SAFETY: the contract has the backend give a table of this layout under this name and version, for good.
        (fits && !table.is_null() && table.is_aligned()).then(|| unsafe { *table })
    }

    /// See [`HasFeatures::available`].
    pub fn available(&self) -> Result<Vec<String>> {
        let names = (self.available)().into_result()?;
        Ok(names.into_iter().map(RString::into_string).collect())
    }

    /// See [`HasFeatures::select`].
    pub fn select(&self, name: &str) -> Result<()> {
        (self.select)(RStr::from(name)).into_result()
    }
}

extern "C" fn available<F: HasFeatures>() -> Outcome<RVec<RString>> {
    guard(|| Ok(F::available()?.into_iter().map(RString::from).collect()))
}

extern "C" fn select<F: HasFeatures>(name: RStr<'_>) -> Outcome<()> {
    guard(|| F::select(name.as_str()))
}
