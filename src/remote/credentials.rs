//! Which variables of the environment say how a remote is asked, for errors: their names, and the
//! files that they name, but no other values.

use std::{env, ffi::OsString};

use object_store::{aws::AmazonS3ConfigKey, azure::AzureConfigKey, gcp::GoogleConfigKey};

use super::Service;

/// Those whose values are paths.
const PATHS: [&str; 5] = [
    "SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_FEDERATED_TOKEN_FILE",
];

/// What is set for a service, in words.
pub(super) fn set_for(service: Service) -> String {
    told(service, env::vars_os())
}

fn told(service: Service, variables: impl Iterator<Item = (OsString, OsString)>) -> String {
    let mut set: Vec<String> = variables
        .filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| is_read(service, name))?;
            let value = value.into_string().ok().filter(|value| is_path(&name, value));
            Some(match value {
                Some(path) => format!("`{name}={path}`"),
                None => format!("`{name}`"),
            })
        })
        .collect();
    set.sort();
    match &set[..] {
        [] => "no variable for it is set".to_owned(),
        [one] => format!("{one} is set"),
        several => format!("{} are set", several.join(", ")),
    }
}

/// Whether `object_store` reads a variable for a service.
fn is_read(service: Service, name: &str) -> bool {
    let key = name.to_ascii_lowercase();
    match service {
        Service::Folder => false,
        Service::S3 => name.starts_with("AWS_") && key.parse::<AmazonS3ConfigKey>().is_ok(),
        Service::Google => {
            name == "SERVICE_ACCOUNT"
                || name.starts_with("GOOGLE_") && key.parse::<GoogleConfigKey>().is_ok()
        }
        Service::Azure => {
            name == "AZURITE_BLOB_STORAGE_URL"
                || name.starts_with("AZURE_") && key.parse::<AzureConfigKey>().is_ok()
        }
    }
}

/// Whether a value may be shown. Some put a key itself where its file is asked for.
fn is_path(name: &str, value: &str) -> bool {
    PATHS.contains(&name) && value.len() < 300 && !value.contains(['{', '"', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named_and_of_their_values_only_paths() {
        let set = [
            ("GOOGLE_APPLICATION_CREDENTIALS", "/keys/mine.json"),
            ("GOOGLE_SERVICE_ACCOUNT", "{\"private_key\": \"x\"}"),
            ("GOOGLE_CHROME", "x"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "secret"),
            ("AZURE_STORAGE_ACCOUNT_NAME", "mine"),
            ("AWS_PAGER", ""),
        ];
        let told = |service| told(service, set.map(|(n, v)| (n.into(), v.into())).into_iter());
        assert_eq!(
            told(Service::Google),
            "`GOOGLE_APPLICATION_CREDENTIALS=/keys/mine.json`, `GOOGLE_SERVICE_ACCOUNT` are set"
        );
        assert_eq!(
            told(Service::Azure),
            "`AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_ACCOUNT_NAME` are set"
        );
        assert_eq!(told(Service::S3), "no variable for it is set");
    }
}
