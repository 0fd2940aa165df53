/* sqlite.c - SQLite as a linked guest: databases in memory and in files. */
#define HLSNAP_GUEST_LIBC
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

static sqlite3 *db;
static char rows[4096];

static int row(void *user, int n, char **values, char **names) {
    size_t used = strlen(rows);
    int i;
    (void)user, (void)names;
    for (i = 0; i < n && used < sizeof(rows); i++)
        used += (size_t)snprintf(rows + used, sizeof(rows) - used, "%s%s", values[i] ? values[i] : "NULL", i + 1 < n ? "|" : ";");
    return 0;
}

/* Opens another database: ":memory:" or a file. */
static hlsnap_result use(hlsnap_call *call, void *user) {
    (void)user;
    sqlite3_close(db);
    if (sqlite3_open(hlsnap_call_arg(call, 0).str, &db)) return hlsnap_call_fail(call, sqlite3_errcode(db), sqlite3_errmsg(db));
    return hlsnap_call_return(call, hlsnap_str("open"));
}

/* Its rows: columns joined by |, each row ended by ; */
static hlsnap_result sql(hlsnap_call *call, void *user) {
    char *why = NULL;
    (void)user;
    rows[0] = 0;
    if (sqlite3_exec(db, hlsnap_call_arg(call, 0).str, row, NULL, &why)) return hlsnap_call_fail(call, sqlite3_errcode(db), why);
    return hlsnap_call_return(call, hlsnap_str(rows));
}

static const hlsnap_function exports[] = {{"use", "str(str)", use, NULL}, {"sql", "str(str)", sql, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);

int main(void) {
    if (sqlite3_open(":memory:", &db)) return 1;
    hlsnap_rt_serve();
}
