//! A table's database that an older version made.

use holdfast_tests_mariadb::Server;
use holdfast_volume_manager_catalog::{CatalogError, Term};
use mysql_async::prelude::Queryable as _;

use crate::subject::{CELL, fresh, session};

const VERSION_1: &str = include_str!("fixtures/mysql-table-version-1.sql");

#[tokio::test]
async fn a_database_of_version_1_is_brought_to_the_current_one_by_the_volume_manager_alone() {
    let config = fresh(Server::shared(), 1).await;
    session(config.table.as_ref().unwrap()).await.query_drop(VERSION_1).await.unwrap();
    let store = config.store("/nowhere".as_ref()).unwrap();
    let early = store.open_for_frontend(CELL).await.unwrap_err();
    assert!(matches!(early, CatalogError::Missing { .. }), "{early}");
    // The second opens what the first has made; several at once make it once.
    for round in 0..2 {
        let opened = futures_util::future::join_all((0..4).map(|_| store.open(CELL))).await;
        let table = opened.into_iter().map(Result::unwrap).next().unwrap().table;
        assert_eq!((table.term().await.unwrap(), table.generation().await.unwrap()), (Term(7), 3));
        assert_eq!((table.volumes().await.unwrap().len(), table.settings().await.unwrap().len()), (1, round));
        table.set_setting(Term(7), "key", Some("value")).await.unwrap();
    }
    let reader = store.open_for_frontend(CELL).await.unwrap().table;
    assert_eq!(reader.settings().await.unwrap().len(), 1);
}
