//! Which paths are served: the catalog, prepared for look-ups.
//!
//! A [`Table`] belongs to one catalog and is built anew when the backend shows another one, which is once per activation of
//! a module. So a request pays one hash look-up, and its counters are found without a lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use prost_reflect::DescriptorPool;

use super::reflection::Files;
use crate::http::Metrics;
use crate::measure::CallMeter;
use crate::service::Catalog;
use crate::wasm::{Method, MethodKind};

/// One served method.
#[derive(Debug)]
pub(super) struct Route {
    /// `/kvstore.v1.KvStore/Put`
    pub(super) path: String,
    pub(super) kind: MethodKind,
    /// Whether it answers with a stream.
    pub(super) streaming: bool,
    /// Where its calls are counted.
    pub(super) meter: Arc<CallMeter>,
}

/// Everything that is served by modules at one time.
#[derive(Debug)]
pub(super) struct Table {
    /// What it was built from. Held, so that no other catalog can get its address.
    catalog: Arc<Catalog>,
    routes: HashMap<String, Arc<Route>>,
    /// Method names by service, both ascending.
    services: BTreeMap<String, Vec<String>>,
    pub(super) files: Files,
}

impl Table {
    fn new(catalog: Arc<Catalog>, metrics: &Metrics) -> Self {
        let modules = catalog.modules.iter().map(|active| &active.module);
        let parts: Vec<_> = modules.map(|module| (module.name(), module.methods(), module.descriptors())).collect();
        Self::of_parts(Arc::clone(&catalog), &parts, metrics)
    }

    fn of_parts(catalog: Arc<Catalog>, modules: &[(&str, &[Method], &DescriptorPool)], metrics: &Metrics) -> Self {
        let mut table = Self { catalog, routes: HashMap::new(), services: BTreeMap::new(), files: Files::ours() };
        for (name, methods, descriptors) in modules {
            methods.iter().for_each(|method| table.add(name, method, metrics));
            table.files.add(name, descriptors);
        }
        table
    }

    fn add(&mut self, module: &str, method: &Method, metrics: &Metrics) {
        let Some((service, name)) = split(&method.path) else { return };
        self.services.entry(service.to_owned()).or_default().push(name.to_owned());
        let meter = metrics.calls(module, method);
        let route = Route { path: method.path.clone(), kind: method.kind, streaming: method.streaming, meter };
        self.routes.insert(method.path.clone(), Arc::new(route));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    pub(super) fn serves(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// Ascending.
    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// Why `path` leads nowhere, and what would.
    pub(super) fn no_such_method(&self, path: &str) -> String {
        let known = split(path).and_then(|(service, method)| Some((service, method, self.services.get(service)?)));
        match known {
            Some((service, method, methods)) => {
                format!("{service} has no method {method}; it has: {}", methods.join(", "))
            }
            None => {
                let services: Vec<_> = self.services().collect();
                format!("no active module serves {path}; services are: {}", services.join(", "))
            }
        }
    }
}

/// `/service/method`
fn split(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.split_once('/')
}

/// The table of the current catalog.
#[derive(Debug)]
pub(super) struct Routes {
    metrics: Arc<Metrics>,
    table: ArcSwap<Table>,
}

impl Routes {
    pub(super) fn new(catalog: Arc<Catalog>, metrics: Arc<Metrics>) -> Self {
        let table = ArcSwap::from_pointee(Table::new(catalog, &metrics));
        Self { metrics, table }
    }

    /// Who serves `path` in `catalog`.
    pub(super) fn route(&self, catalog: &Arc<Catalog>, path: &str) -> Option<Arc<Route>> {
        let table = self.table.load();
        if Arc::ptr_eq(&table.catalog, catalog) {
            return table.routes.get(path).map(Arc::clone);
        }
        self.table(catalog).routes.get(path).map(Arc::clone)
    }

    /// The table of `catalog`, built if the one we have is another's.
    pub(super) fn table(&self, catalog: &Arc<Catalog>) -> Arc<Table> {
        let table = self.table.load_full();
        if Arc::ptr_eq(&table.catalog, catalog) {
            return table;
        }
        let table = Arc::new(Table::new(Arc::clone(catalog), &self.metrics));
        self.table.store(Arc::clone(&table));
        table
    }
}

/// Prepares what is served for a catalog of `module` alone, for tests that have nobody to call it; how many methods there are.
#[cfg(test)]
pub(crate) fn prepared(module: &crate::wasm::Module) -> usize {
    let active = crate::service::Active { module: module.clone(), generation: 1 };
    let catalog = Arc::new(Catalog { modules: vec![active] });
    Table::new(catalog, &Metrics::new()).routes.len()
}
