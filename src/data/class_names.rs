//! Classes by the names that a data set gives them. One class may have several: `building,
//! edifice`.

use super::DataError;

/// The place of a class, from 0: that of this name, or else the one that has it among its names.
pub fn find(names: &[String], class: &str) -> Result<usize, DataError> {
    if let Some(place) = names.iter().position(|name| name == class) {
        return Ok(place);
    }
    let is_one = |name: &String| name.split(", ").any(|word| word == class);
    let mut called = (0..names.len()).filter(|place| is_one(&names[*place]));
    match (called.next(), called.next()) {
        (Some(place), None) => Ok(place),
        (None, _) => {
            Err(DataError::failed(format!("the data has no class `{class}`"))
                .with_help(known(names)))
        }
        (Some(one), Some(other)) => {
            let [one, other] = [one, other].map(|place| &names[place]);
            let message = format!("both `{one}` and `{other}` are called `{class}`");
            Err(DataError::failed(message).with_help("name one of them in full"))
        }
    }
}

/// The classes there are, so that each can be told from its neighbours.
fn known(names: &[String]) -> String {
    let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let any = names.iter().any(|name| name.contains(", "));
    format!(
        "the classes are: {list}{}",
        if any { "; one of the names of a class will do" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_found_by_its_whole_name_or_by_one_of_its_names() {
        let names =
            ["home plate, plate", "plate", "building, edifice", "door, screen", "screen, crt"];
        let names = names.map(str::to_owned);
        let found = |class: &str| find(&names, class).map_err(|error| error.to_string());
        assert_eq!(found("plate"), Ok(1), "not the home plate, which comes first");
        assert_eq!((found("edifice"), found("building, edifice")), (Ok(2), Ok(2)));
        let error = found("screen").unwrap_err();
        assert_eq!(error, "both `door, screen` and `screen, crt` are called `screen`");
        let DataError::Failed { message, help, .. } = find(&names[1..3], "cow").unwrap_err() else {
            panic!("the request is wrong");
        };
        assert_eq!(message, "the data has no class `cow`");
        let help = help.unwrap();
        assert_eq!(
            help,
            "the classes are: `plate`, `building, edifice`; one of the names of a class will do"
        );
    }
}
