//! Nodes that hang, disks that are not what they claim to be or take no more writes, and callers that hang up.

use std::time::Duration;

use crate::support::{self, APPLY, Call, Cell, FRONTEND, Started, eventually, timing};
use holdfast_libs_transport::{CallError, Role};
use holdfast_libs_types::{DiskId, InstanceId, KeyId, VolumeId};
use holdfast_node_client::code;
use holdfast_volume_manager_catalog::{Volume, VolumeState};
use holdfast_volume_manager_client::{Heartbeat, LeaseRequest, Register, UnusableDisk};
use serde_json::{Value, json};

async fn sealed(cell: &Cell) -> Volume {
    let leased = cell.written(2).await;
    cell.ask_to_seal(leased.volume).await;
    cell.sealed(leased.volume).await
}

async fn disk_state(cell: &Cell, disk: DiskId) -> (String, String) {
    let status = cell.admin().status().await.unwrap();
    let row = status.disks.into_iter().find(|row| row.disk == disk).unwrap();
    (row.state, row.reason.unwrap_or_default())
}

#[tokio::test]
async fn a_faithful_clone_is_refused_while_the_disk_is_in_use_and_is_the_disk_once_that_is_gone() {
    let mut times = timing();
    times.suspect_ms = 1000;
    let cell = Cell::start(times, 1).await;
    let owner = &cell.nodes[0];
    let disk = owner.disks()[0];
    let mut disks = owner.registration().disks;
    // It shows the very nonce that stands.
    (disks[0].previous_nonce, disks[0].nonce) = (disks[0].nonce, 77);
    let clone = Register {
        node: holdfast_libs_types::NodeId("node-9".to_owned()),
        instance: InstanceId([99; 16]),
        address: "https://127.0.0.1:1".to_owned(),
        disks,
        ..owner.registration()
    };
    let client = cell.client(Role::Node);
    let judged = client.register(&clone).await.unwrap().disks.remove(0);
    let reason = judged.reason.unwrap();
    assert!(!judged.accepted && reason.contains("in use at node node-1"), "{reason}");
    assert_eq!(disk_state(&cell, disk).await.0, "healthy");
    let told = async || {
        let status = cell.admin().status().await.unwrap();
        let told = format!("node node-9 cannot use {}: disk {disk} is in use at node node-1", clone.disks[0].path);
        let (row, told) = (
            status.nodes.iter().any(|row| row.node.0 == "node-9" && row.unusable.len() == 1),
            status.reasons.iter().any(|reason| reason.starts_with(&told)),
        );
        assert_eq!(row, told, "{:?}", status.reasons);
        (told, status.health)
    };
    assert_eq!(told().await, (true, "degraded".to_owned()));
    let mut heartbeat = Heartbeat {
        node: clone.node.clone(),
        instance: clone.instance,
        disks: clone.disks.clone(),
        unusable: Vec::new(),
    };
    client.heartbeat(&heartbeat).await.unwrap();
    assert!(told().await.0, "it is still there");
    heartbeat.disks.clear();
    client.heartbeat(&heartbeat).await.unwrap();
    assert!(!told().await.0, "it was taken out");

    owner.silence(true);
    eventually("the disk has moved", async || client.register(&clone).await.unwrap().disks[0].accepted.then_some(()))
        .await;
    // The one left behind is the clone now.
    owner.silence(false);
    let answer = client.register(&owner.registration()).await.unwrap();
    assert!(!answer.disks[0].accepted);
}

/// What node-9 says of the first disk of `owner`, moved there with the nonce that stands.
fn moved(owner: &support::FakeNode, nonce: u64) -> Register {
    let mut report = owner.registration().disks.remove(0);
    (report.previous_nonce, report.nonce) = (report.nonce, nonce);
    Register {
        node: holdfast_libs_types::NodeId("node-9".to_owned()),
        instance: InstanceId([99; 16]),
        address: "https://127.0.0.1:1".to_owned(),
        zone: "zone-9".to_owned(),
        rack: "rack-1".to_owned(),
        disks: vec![report],
        ..owner.registration()
    }
}

#[tokio::test]
async fn a_disk_that_is_moved_belongs_to_its_new_node_at_once_when_the_old_one_says_that_it_is_gone() {
    // The old node lives on, and no time has to pass.
    let cell = Cell::start(timing(), 1).await;
    let owner = &cell.nodes[0];
    let disk = owner.disks()[0];
    let moved = moved(owner, 77);
    let client = cell.client(Role::Node);
    let judged = client.register(&moved).await.unwrap().disks.remove(0);
    assert!(!judged.accepted && judged.retry, "it may be accepted once the old node lets go: {judged:?}");
    owner.report(disk, |report| {
        report.state = "failed".to_owned();
        report.reason = Some("/dev/x is gone".to_owned());
    });
    eventually("the disk has moved", async || client.register(&moved).await.unwrap().disks[0].accepted.then_some(()))
        .await;
    // The old node goes on to say that it is gone; nobody believes it about this disk any more.
    let row =
        |status: holdfast_volume_manager_client::CellStatus| status.disks.into_iter().find(|row| row.disk == disk);
    let heard = cell.admin().status().await.unwrap();
    assert_eq!(row(heard).unwrap().node.0, "node-9");
    let answer = client.register(&owner.registration()).await.unwrap();
    assert!(!answer.disks[0].accepted);
    let after = row(cell.admin().status().await.unwrap()).unwrap();
    assert_eq!((after.node.0.as_str(), after.state.as_str()), ("node-9", "healthy"));
}

#[tokio::test]
async fn a_disk_that_is_moved_belongs_to_its_new_node_at_once_when_the_old_one_speaks_without_it() {
    let cell = Cell::start(timing(), 2).await;
    let owner = &cell.nodes[0];
    let moved = moved(owner, 77);
    owner.remove(owner.disks()[0]);
    let client = cell.client(Role::Node);
    eventually("the disk has moved", async || client.register(&moved).await.unwrap().disks[0].accepted.then_some(()))
        .await;
}

#[tokio::test]
async fn a_disk_that_does_not_answer_is_suspect_with_its_reason_and_keeps_its_replicas() {
    let cell = Cell::start(timing(), 2).await;
    let volume = sealed(&cell).await;
    let hung = volume.replicas[0];
    cell.node_of(hung).report(hung, |report| {
        report.state = "suspect".to_owned();
        report.reason = Some("it has answered nothing for 5 s".to_owned());
    });
    let (state, reason) = eventually("it is suspect", async || {
        let row = disk_state(&cell, hung).await;
        (row.0 != "healthy").then_some(row)
    })
    .await;
    assert_eq!(state, "suspect");
    assert!(reason.starts_with("it has answered nothing for 5 s; repair starts in "), "{reason}");
    for _ in 0..20 {
        let leased = cell.written(1).await;
        assert!(leased.replicas.iter().all(|replica| replica.disk != hung), "nothing new goes there");
    }
    assert_eq!(cell.row(volume.volume).await.replicas, volume.replicas);
}

#[tokio::test]
async fn what_a_node_cannot_use_is_told_in_the_status() {
    let cell = Cell::start(timing(), 1).await;
    let unusable = |cause: &str| UnusableDisk {
        path: format!("/dev/disk/by-id/wwn-{cause}"),
        cause: cause.to_owned(),
        reason: "this is why".to_owned(),
    };
    let register =
        Register { unusable: vec![unusable("unformatted"), unusable("duplicate")], ..cell.nodes[0].registration() };
    cell.nodes[0].silence(true);
    cell.client(Role::Node).register(&register).await.unwrap();
    let status = cell.admin().status().await.unwrap();
    let row = status.nodes.iter().find(|row| row.node == register.node).unwrap();
    assert_eq!(row.unusable, register.unusable);
    let told: Vec<_> = status.reasons.iter().filter(|reason| reason.contains("wwn-")).collect();
    assert!(told.len() == 1 && told[0].contains("wwn-duplicate"), "a blank device is no trouble: {told:?}");
}

#[tokio::test]
async fn a_disk_that_was_pulled_is_told_once_and_so_is_one_that_is_offline_meanwhile() {
    let cell = Cell::start(timing(), 2).await;
    let node = &cell.nodes[0];
    let [pulled, other] = node.disks()[..] else { panic!("two disks") };
    let path = node.registration().disks.iter().find(|report| report.disk == pulled).unwrap().path.clone();
    node.report(pulled, |report| {
        (report.state, report.reason) = ("gone".to_owned(), Some(format!("nothing is at {path} any more")));
    });
    node.silence(true);
    let missing = |path: &str| UnusableDisk {
        path: path.to_owned(),
        cause: "missing".to_owned(),
        reason: "does not exist".to_owned(),
    };
    let mut register = Register { unusable: vec![missing(&path), missing("/dev/never")], ..node.registration() };
    for report in register.disks.iter_mut().filter(|report| report.disk == pulled) {
        // No incarnation is proposed for what is not there.
        (report.nonce, report.previous_nonce) = (0, 0);
    }
    cell.client(Role::Node).register(&register).await.unwrap();
    assert_eq!(disk_state(&cell, pulled).await.0, "down", "it is waited for");
    let status = cell.admin().status().await.unwrap();
    let about = |text: &str| status.reasons.iter().filter(|reason| reason.contains(text)).count();
    assert_eq!((about(&path), about("/dev/never")), (1, 1), "{:?}", status.reasons);
    assert!(status.nodes.iter().any(|row| row.unusable.len() == 2));
    for disk in [pulled, other] {
        cell.admin().order_disk(disk, "offline", &APPLY).await.unwrap();
    }
    let status = cell.admin().status().await.unwrap();
    for disk in [pulled, other] {
        let told = status.reasons.iter().filter(|reason| reason.starts_with(&format!("disk {disk} is "))).count();
        assert_eq!(told, 1, "{:?}", status.reasons);
    }
}

#[tokio::test]
async fn key_areas_that_fill_up_are_told_before_they_are_full() {
    let cell = Cell::start(timing(), 1).await;
    let told = async |generation: u8, used: u64| {
        cell.nodes[1].use_key_bytes(used);
        cell.index().await.put_key(&KeyId([generation; 16]), &[1; 40]).await.unwrap();
        cell.lease().await;
        let status = cell.admin().status().await.unwrap();
        status.reasons.into_iter().find(|reason| reason.starts_with("the key area of disk"))
    };
    assert_eq!(told(1, 799).await, None);
    let said = told(2, 800).await.unwrap();
    let disk = cell.nodes[1].disks()[0];
    assert!(said.contains(&format!("disk {disk} is 80 % full: it has 2 of about 2 keys")), "{said}");
    assert!(said.contains("writes stop"), "{said}");
}

#[tokio::test]
async fn a_full_key_area_is_told_with_its_numbers_and_without_advice_that_makes_no_room() {
    let cell = Cell::start(timing(), 1).await;
    for node in &cell.nodes {
        node.use_key_bytes(1001);
    }
    cell.index().await.put_key(&KeyId([1; 16]), &[1; 40]).await.unwrap();
    let reasons = eventually("every disk has said that its key area is full", async || {
        let reasons = cell.admin().status().await.unwrap().reasons;
        reasons.iter().any(|reason| reason.starts_with("the key areas of 3 disks are full")).then_some(reasons)
    })
    .await;
    let about_keys: Vec<&String> = reasons.iter().filter(|reason| reason.contains("key")).collect();
    let said = about_keys.iter().find(|reason| reason.starts_with("the key areas")).unwrap();
    assert!(said.contains("1 key is to be there and about 0 fit") && said.contains("writes stop"), "{said}");
    assert!(said.contains("neither a drain nor a new disk makes room"), "{said}");
    assert!(!about_keys.iter().any(|reason| reason.contains("drain and replace")), "{about_keys:?}");
    assert!(about_keys.iter().any(|reason| reason.contains("3 with a full key area")), "{about_keys:?}");
}

#[tokio::test]
async fn an_old_image_put_back_into_its_node_counts_as_failed_and_what_it_held_is_made_again() {
    let mut cell = Cell::start(timing(), 2).await;
    let volume = sealed(&cell).await;
    let old = volume.replicas[0];
    let node = cell.node_of(old);
    // The disk registered once more since the image was taken, under nonce 12.
    let mut newer = node.registration();
    let report = newer.disks.iter_mut().find(|report| report.disk == old).unwrap();
    (report.previous_nonce, report.nonce) = (report.nonce, 12);
    assert!(cell.client(Role::Node).register(&newer).await.unwrap().disks.iter().all(|disk| disk.accepted));
    node.report(old, |report| (report.previous_nonce, report.nonce) = (10, 13));
    cell.crash_manager();
    cell.start_manager().await;
    let (accepted, reason) =
        eventually("it was judged", async || cell.node_of(old).judged(old).filter(|(accepted, _)| !accepted)).await;
    assert!(!accepted && reason.unwrap().contains("old disk put back"));
    // A node sets such a disk read-only and goes on to report it: that must not make it a replica's place again.
    cell.node_of(old).report(old, |report| report.state = "read_only".to_owned());
    let row = eventually("what it held is made again", async || {
        let row = cell.row(volume.volume).await;
        (!row.replicas.contains(&old)).then_some(row)
    })
    .await;
    assert_eq!(row.replicas.len(), 3);
    let (state, reason) = disk_state(&cell, old).await;
    assert!(state == "failed" && reason.contains("clone"), "{state}: {reason}");
}

#[tokio::test]
async fn a_disk_that_takes_no_more_writes_is_replaced_and_read_meanwhile() {
    let cell = Cell::start(timing(), 2).await;
    let volume = sealed(&cell).await;
    let worn = volume.replicas[2];
    // Which of a zone's two disks a volume gets is up to its id.
    let open = loop {
        let leased = cell.written(1).await;
        if leased.replicas.iter().any(|replica| replica.disk == worn) {
            break leased.volume;
        }
    };
    cell.node_of(worn).report(worn, |report| {
        report.state = "read_only".to_owned();
        report.reason = Some("write error".to_owned());
    });
    let row = eventually("the sealed volume is elsewhere", async || {
        let row = cell.row(volume.volume).await;
        (!row.replicas.contains(&worn)).then_some(row)
    })
    .await;
    assert_eq!(row.replicas.len(), 3);
    let row = cell.sealed(open).await;
    assert!(row.seal_reason.unwrap().contains("read_only"));
    let status = cell.admin().status().await.unwrap();
    assert!(status.health == "degraded" && status.reasons.iter().any(|reason| reason.contains("write error")));
}

#[tokio::test]
async fn a_node_that_answers_no_audit_holds_up_neither_seals_nor_leases() {
    let mut times = timing();
    times.audit_ms = 100;
    times.lease_ms = 1000;
    let cell = Cell::start(times, 1).await;
    let before = cell.nodes[0].count(Call::Extents, VolumeId::default());
    for node in &cell.nodes {
        node.hang(Call::Extents);
    }
    eventually("audits hang", async || {
        (cell.nodes[0].count(Call::Extents, VolumeId::default()) > before).then_some(())
    })
    .await;
    let leased = cell.lease().await;
    // Nobody renews it: the loop has to see that.
    assert_eq!(cell.sealed(leased.volume).await.seal_reason.as_deref(), Some("its lease ran out"));
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_no_volume_half_made() {
    let cell = Cell::start(timing(), 1).await;
    for node in &cell.nodes {
        node.hang(Call::Create);
    }
    let request = LeaseRequest { frontend: FRONTEND, avoid: Vec::new() };
    let frontend = cell.frontend();
    let asked = tokio::spawn(async move { frontend.lease(&request).await });
    let row = eventually("it is being made", async || cell.admin().volumes().await.unwrap().pop()).await;
    assert_eq!(row.state, "creating");
    asked.abort();
    for node in &cell.nodes {
        node.unhang();
    }
    // It is made all the same, and sealed empty.
    eventually("it is open", async || (cell.row(row.volume).await.state == VolumeState::Open).then_some(())).await;
    cell.ask_to_seal(row.volume).await;
    let row = cell.sealed(row.volume).await;
    assert_eq!((row.state, row.length), (VolumeState::Sealed, Some(0)));
    assert_eq!(cell.admin().status().await.unwrap().volumes.total, 0);
}

#[tokio::test]
async fn every_node_gets_the_keyring_once_for_each_generation_and_again_when_it_restarts_or_gets_a_disk() {
    let cell = Cell::start(timing(), 1).await;
    let index = cell.index().await;
    for generation in 1..=2u8 {
        let key = KeyId([generation; 16]);
        assert_eq!(index.put_key(&key, &[generation; 40]).await.unwrap(), u64::from(generation));
        for node in &cell.nodes {
            let given = eventually("it has the keyring", async || {
                node.keyrings().pop().filter(|body| body.generation == u64::from(generation))
            })
            .await;
            assert_eq!(given.keys.len(), usize::from(generation));
            assert_eq!(given.keys.last().unwrap(), &(key.to_string(), format!("{generation:02x}").repeat(40)));
        }
    }
    assert!(cell.nodes.iter().all(|node| node.keyrings().len() == 2));
    cell.nodes[0].restart(InstanceId([98; 16]));
    eventually("it has it again", async || (cell.nodes[0].keyrings().len() == 3).then_some(())).await;
    cell.nodes[0].add(DiskId([99; 16]));
    eventually("its new disk has it, too", async || (cell.nodes[0].keyrings().len() == 4).then_some(())).await;
}

#[tokio::test]
async fn no_volume_is_leased_on_a_disk_that_lacks_the_keyring_and_it_is_given_to_it_again() {
    let cell = Cell::start(timing(), 2).await;
    let node = &cell.nodes[0];
    let [sick, well] = node.disks()[..] else { panic!("two disks") };
    let has_slots = async |free_slots: u64| {
        node.report(well, |report| report.free_slots = free_slots);
        eventually("the node's other disk is known as it is", async || {
            let disks = cell.admin().status().await.unwrap().disks;
            disks.iter().any(|row| row.disk == well && row.free_slots == free_slots).then_some(())
        })
        .await;
    };
    // A volume needs a disk of each of the three nodes, and this one has no other now.
    has_slots(5).await;
    node.refuse(Call::Keyring, sick, code::DISK_FAILED);
    cell.index().await.put_key(&KeyId([1; 16]), &[1; 40]).await.unwrap();
    let request = LeaseRequest { frontend: FRONTEND, avoid: Vec::new() };
    cell.frontend().lease(&request).await.unwrap_err();
    let told = format!("disk {sick} does not take the keyring, so nothing new goes there");
    eventually("the operator is told", async || {
        let status = cell.admin().status().await.unwrap();
        status.reasons.iter().any(|reason| reason.starts_with(&told)).then_some(())
    })
    .await;
    // Nor does it cost the other nodes a slot.
    let tried = || cell.nodes.iter().map(|node| node.asked(Call::Create)).sum::<usize>();
    let before = tried();
    let refused = cell.frontend().lease(&request).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("1 not taking the keyring ({sick})")), "{refused}");
    assert_eq!(tried(), before);
    has_slots(100).await;
    for _ in 0..4 {
        assert!(cell.lease().await.replicas.iter().any(|replica| replica.disk == well));
    }
    let given = node.keyrings().len();
    eventually("it is given again", async || (node.keyrings().len() > given).then_some(())).await;
    node.admit();
    let leased = eventually("the disk is used", async || {
        Some(cell.lease().await).filter(|leased| leased.replicas.iter().any(|replica| replica.disk == sick))
    });
    leased.await;
}

#[tokio::test]
async fn nodes_that_were_not_heard_of_since_the_start_are_told_as_such_in_one_line() {
    let mut cell = Cell::start(timing(), 2).await;
    cell.nodes[0].silence(true);
    cell.crash_manager();
    let started = Started::new(cell.config.clone());
    for node in &cell.nodes {
        node.follow(&started.address);
    }
    cell.manager = Some(started);
    let admin = cell.admin();
    let status = eventually("the others are up", async || {
        let status = admin.status().await.ok()?;
        (status.nodes.iter().filter(|node| node.state == "up").count() == 2).then_some(status)
    })
    .await;
    let [awaited, stops] = &status.reasons[..] else { panic!("{:?}", status.reasons) };
    assert_eq!(awaited, "not heard of yet since this volume manager began to lead: 1 of 3 nodes (node-1)");
    assert!(stops.starts_with("no new volume can be made"), "{stops}");
    let silent = status.nodes.iter().find(|node| node.node == cell.nodes[0].name).unwrap();
    assert_eq!((silent.state.as_str(), silent.last_heartbeat_ms), ("suspect", None));
    let settling = status.settling.unwrap();
    assert!(settling.starts_with("1 of 3 nodes are not heard of yet"), "{settling}");
    cell.nodes[0].hang(Call::Extents);
    cell.nodes[0].silence(false);
    cell.wait_for_nodes().await;
    eventually("the last is still being compared", async || {
        let settling = cell.admin().status().await.unwrap().settling;
        (settling.as_deref() == Some("what 1 node holds is still being compared with the catalog")).then_some(())
    })
    .await;
    cell.nodes[0].unhang();
    let known = eventually("all is known", async || {
        Some(cell.admin().status().await.unwrap()).filter(|status| status.settling.is_none())
    })
    .await;
    assert_eq!(known.reasons, Vec::<String>::new());
}

#[tokio::test]
async fn a_message_that_is_not_right_is_answered_in_the_shape_of_all_errors() {
    let cell = Cell::start(timing(), 1).await;
    let call = async |role: Role, path: &str, body: &Value| {
        let url = format!("{}{path}", cell.address());
        let answer: Result<Value, CallError> = cell.http(role).post_json(&url, body, Duration::from_secs(10)).await;
        match answer.unwrap_err() {
            CallError::Api(error) => (error.status.as_u16(), error.code, error.message),
            other => panic!("{other}"),
        }
    };
    let (status, code, message) = call(Role::Frontend, "/v1/leases", &json!({"frontend": 7})).await;
    assert!(
        (status, code.as_str()) == (422, "bad_request") && message.contains("frontend"),
        "{status} {code} {message}"
    );
    let (status, code, _) = call(Role::Frontend, "/v1/nothing", &json!({})).await;
    assert_eq!((status, code.as_str()), (404, "not_found"));
    let mut nameless = cell.nodes[0].registration();
    nameless.zone = String::new();
    let (status, _, message) = call(Role::Node, "/v1/register", &serde_json::to_value(&nameless).unwrap()).await;
    assert!(status == 400 && message.contains("zone"), "{message}");
    nameless.zone = "zone-1".to_owned();
    nameless.address = "http://127.0.0.1:1".to_owned();
    let (status, _, message) = call(Role::Node, "/v1/register", &serde_json::to_value(&nameless).unwrap()).await;
    assert!(status == 400 && message.contains("https://HOST:PORT"), "{message}");
}
