/* sqlite3.c - a shell for SQLite: runs the SQL that it reads, in a database in memory. An ordinary program, which knows nothing of
   where it runs; ../09_program.sh links it with the static library that Debian has. */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

static int print_row(void *user, int num, char **values, char **names) {
    int i;
    (void)user, (void)names;
    for (i = 0; i < num; i++) printf("%s%s", values[i] ? values[i] : "", i + 1 < num ? "|" : "\n");
    return 0;
}

int main(void) {
    static char sql[1 << 16];
    size_t used = 0;
    sqlite3 *db = NULL;
    int wrong = sqlite3_open(":memory:", &db);
    while (!wrong && fgets(sql + used, (int)(sizeof(sql) - used), stdin)) {
        char *why = NULL;
        used += strlen(sql + used);
        if (!sqlite3_complete(sql) && used + 1 < sizeof(sql)) continue;
        if (sqlite3_exec(db, sql, print_row, NULL, &why)) fprintf(stderr, "%s\n", why);
        sqlite3_free(why);
        fflush(stdout);
        sql[used = 0] = 0;
    }
    if (wrong) fprintf(stderr, "%s\n", sqlite3_errmsg(db));
    sqlite3_close(db);
    return wrong != 0;
}
