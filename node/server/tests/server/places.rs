//! Where disks stand: what is there, the light of the bay, and a blank disk that is taken into use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::{DISK_BYTES, Recorded, TestNode, VolumeManager, certificates, config, folder};
use holdfast_libs_transport::{CallError, Role};
use holdfast_node_client::{DiskState, LocateOrder, NodeClient, Occupant, PlaceAsk, code};
use holdfast_node_server::{DiskPath, Machine};

fn ask(path: &Path) -> PlaceAsk {
    PlaceAsk { path: path.display().to_string() }
}

/// Code and message of a refusal.
fn refused<T: std::fmt::Debug>(result: Result<T, CallError>) -> (String, String) {
    match result.unwrap_err() {
        CallError::Api(error) => (error.code, error.message),
        other => panic!("no answer of the protocol: {other}"),
    }
}

/// A node with one disk and a place for another.
async fn node_with_an_empty_place(root: &Path) -> (TestNode, NodeClient, PathBuf, VolumeManager) {
    let tls = certificates(root);
    let volume_manager = VolumeManager::start(&tls).await;
    let mut config = config(root, &tls, "node-1", 1, &volume_manager.address);
    let place = root.join("place");
    std::fs::write(&place, b"somebody's").unwrap();
    config.disks.push(DiskPath { path: place.clone() });
    let node = TestNode::start(config).await;
    let admin = node.client(Role::Admin);
    (node, admin, place, volume_manager)
}

#[tokio::test]
async fn a_blank_file_is_adopted_and_one_with_anything_on_it_never() {
    let root = folder();
    let (node, admin, place, _volume_manager) = node_with_an_empty_place(root.path()).await;
    let mut content = vec![0_u8; DISK_BYTES as usize];
    for at in [0, 5000, DISK_BYTES as usize - 1] {
        content[at] = 1;
        std::fs::write(&place, &content).unwrap();
        let (refusal, message) = refused(admin.adopt(&ask(&place)).await);
        assert!(refusal == code::NOT_BLANK && message.contains("nothing on it was changed"), "{message}");
        assert_eq!(std::fs::read(&place).unwrap(), content, "{at}");
        content[at] = 0;
    }
    std::fs::remove_file(&place).unwrap();
    let (refusal, message) = refused(admin.adopt(&ask(&place)).await);
    assert!(refusal == code::NOT_BLANK && message.contains("does not exist"), "{message}");
    assert!(!place.exists(), "nothing is made where nothing stands");
    assert_eq!(admin.look_at_place(&ask(&place)).await.unwrap().occupant, Occupant::Empty);

    std::fs::write(&place, &content).unwrap();
    let looked = admin.look_at_place(&ask(&place)).await.unwrap();
    assert_eq!((looked.occupant, looked.disk), (Occupant::Unformatted, None));
    let adopted = admin.adopt(&ask(&place)).await.unwrap();
    let status = admin.status().await.unwrap();
    let disk = status.disks.iter().find(|disk| disk.disk == Some(adopted.disk)).unwrap();
    assert_eq!((&disk.state, disk.slots), (&DiskState::Healthy, adopted.slots));
    let looked = admin.look_at_place(&ask(&place)).await.unwrap();
    assert_eq!((looked.occupant, looked.disk), (Occupant::Disk, Some(adopted.disk)));
    let (refusal, message) = refused(admin.adopt(&ask(&place)).await);
    assert!(refusal == code::IN_USE && message.contains(&adopted.disk.to_string()), "{message}");
    node.stop().await;
}

#[tokio::test]
async fn only_where_the_configuration_wants_a_disk_is_one_adopted_and_only_an_operator_may() {
    let root = folder();
    let (node, admin, place, _volume_manager) = node_with_an_empty_place(root.path()).await;
    let elsewhere = root.path().join("elsewhere");
    std::fs::write(&elsewhere, vec![0_u8; DISK_BYTES as usize]).unwrap();
    for result in [admin.adopt(&ask(&elsewhere)).await.map(drop), admin.look_at_place(&ask(&elsewhere)).await.map(drop)]
    {
        let (refusal, message) = refused(result);
        assert!(refusal == code::UNKNOWN_PLACE && message.contains("node-1 wants no disk at"), "{message}");
    }
    assert!(std::fs::read(&elsewhere).unwrap().iter().all(|byte| *byte == 0));
    std::fs::write(&place, vec![0_u8; DISK_BYTES as usize]).unwrap();
    for role in [Role::Node, Role::Frontend, Role::VolumeManager, Role::Metadata] {
        assert_eq!(refused(node.client(role).adopt(&ask(&place)).await).0, "forbidden");
    }
    assert!(std::fs::read(&place).unwrap().iter().all(|byte| *byte == 0));
    let order = LocateOrder { path: place.display().to_string(), on: true };
    let (refusal, message) = refused(admin.locate(&order).await);
    assert!(refusal == code::NO_LIGHT && message.contains("it is a file"), "{message}");
    let looked = admin.look_at_place(&ask(&place)).await.unwrap();
    assert!(looked.bay.is_none() && looked.no_light.unwrap().contains("it is a file"));
    node.stop().await;
}

const PROFILE: &str = "name = 'lit'
[chassis]
name = 'lit'
[[bays]]
name = 'front-7'
path = 'pci-0-sas-phy7-lun-0'
media = 'hdd'
slot = 'Slot 07'
[led]
method = 'METHOD'
[expected]
disks = 1
";

#[tokio::test]
async fn the_light_of_a_bay_is_switched_also_when_its_disk_is_gone_and_a_chassis_without_lights_says_so() {
    for method in ["enclosure", "none"] {
        let root = folder();
        let tls = certificates(root.path());
        let volume_manager = VolumeManager::start(&tls).await;
        let slot = root.path().join("sys/class/enclosure/0:0:1:0/Slot 07");
        std::fs::create_dir_all(&slot).unwrap();
        std::fs::create_dir_all(root.path().join("sys/block")).unwrap();
        for (file, text) in [("status", "OK\n"), ("slot", "7\n"), ("locate", "0\n")] {
            std::fs::write(slot.join(file), text).unwrap();
        }
        let profile = root.path().join("lit.toml");
        std::fs::write(&profile, PROFILE.replace("METHOD", method)).unwrap();
        let mut config = config(root.path(), &tls, "node-1", 1, &volume_manager.address);
        config.profile = Some(profile.display().to_string());
        let path = "/dev/disk/by-path/pci-0-sas-phy7-lun-0".to_owned();
        let node = TestNode::start_on(Machine::new(root.path(), Arc::new(Recorded::default())), config).await;
        let admin = node.client(Role::Admin);
        let light = || std::fs::read_to_string(slot.join("locate")).unwrap();
        let order = |on| LocateOrder { path: path.clone(), on };
        let looked = admin.look_at_place(&PlaceAsk { path: path.clone() }).await.unwrap();
        assert_eq!((looked.occupant, looked.bay.as_deref()), (Occupant::Empty, Some("front-7")));
        if method == "enclosure" {
            assert_eq!(looked.no_light, None);
            let located = admin.locate(&order(true)).await.unwrap();
            assert_eq!((located.bay.as_str(), light().as_str()), ("front-7", "1"));
            admin.locate(&order(false)).await.unwrap();
            assert_eq!(light(), "0");
            let nowhere = LocateOrder { path: "/dev/disk/by-path/pci-0-sas-phy8-lun-0".to_owned(), on: true };
            assert!(refused(admin.locate(&nowhere).await).1.contains("no bay of the profile lit"));
        } else {
            assert!(looked.no_light.unwrap().contains("no lights"));
            let (refusal, message) = refused(admin.locate(&order(true)).await);
            assert!(refusal == code::NO_LIGHT && message.contains("no lights"), "{message}");
            assert_eq!(light(), "0\n");
        }
        node.stop().await;
    }
}
