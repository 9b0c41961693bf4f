//! A plugin of another contract: its root module has another layout, or another version as well.

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModule, RootModuleResult},
    package_version_strings,
    prefix_type::PrefixTypeTrait,
    sabi_types::VersionStrings,
    std_types::RStr,
};

#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = BackendModule, prefix_fields = BackendModulePrefix)))]
#[sabi(missing_field(panic))]
pub struct BackendFunctions {
    pub name: RStr<'static>,
    pub version: RStr<'static>,
    #[sabi(last_prefix_field)]
    pub score: extern "C" fn(u64) -> f64,
}

impl RootModule for BackendModule {
    declare_root_module_statics! {BackendModule}
    const BASE_NAME: &'static str = "backend";
    const NAME: &'static str = "backend";
    const VERSION_STRINGS: VersionStrings = if cfg!(feature = "other-version") {
        VersionStrings::new("99.0.0")
    } else {
        package_version_strings!()
    };
}

extern "C" fn score(_: u64) -> f64 {
    1e9
}

fn module() -> BackendModule {
    BackendFunctions {
        name: RStr::from_str("stranger"),
        version: RStr::from_str("1.0.0"),
        score,
    }
    .leak_into_prefix()
}

extern "C" fn load() -> RootModuleResult {
    __call_root_module_loader(module)
}

// SAFETY: the name is abi_stable's own; `load` makes the module that the header is typed with.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
#[used]
pub static HEADER: LibHeader = unsafe { LibHeader::from_constructor::<BackendModule>(load, CheckTypeLayout::Yes) };
