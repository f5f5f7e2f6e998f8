//! Figures over several rounds.

use serde_json::{Value, json};

use crate::show;

/// Every figure with its value in each round, in the order they were first added.
#[derive(Debug, Default)]
pub struct Figures(Vec<(&'static str, Vec<f64>)>);

impl Figures {
    /// One round's value.
    pub fn add(&mut self, name: &'static str, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name, vec![value])),
        }
    }

    /// Each figure's median; under `spread` its lowest and highest.
    pub fn document(&self) -> Value {
        let mut document = json!({});
        let tidy = |value: f64| (value * 1000.0).round() / 1000.0;
        for (name, values) in &self.0 {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            document[*name] = tidy(sorted[sorted.len() / 2]).into();
            document["spread"][*name] = json!([tidy(sorted[0]), tidy(sorted[sorted.len() - 1])]);
        }
        document
    }
}

/// The document as a table.
pub fn screen(document: &Value) -> String {
    let mut rows = vec![["FIGURE", "MEDIAN", "LOWEST", "HIGHEST"].map(str::to_owned).to_vec()];
    for (name, value) in document.as_object().into_iter().flatten().filter(|(_, value)| value.is_number()) {
        let spread = &document["spread"][name];
        rows.push(vec![name.clone(), value.to_string(), spread[0].to_string(), spread[1].to_string()]);
    }
    show::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn the_median_and_the_spread_are_told() {
        let mut figures = Figures::default();
        for value in [3.0, 1.0, 2.0] {
            figures.add("x", value);
        }
        let document = figures.document();
        assert_eq!(document["x"], 2.0);
        assert_eq!(document["spread"]["x"], serde_json::json!([1.0, 3.0]));
    }
}
