/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The readers of option dictionaries, fed with real messages: every key, every wrong type, both
 * ends of each range, and what callers may write that we would not. Also: text that D-Bus does not
 * take. */

#include <fcntl.h>
#include <glib.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include "bus/errors.h"
#include "bus/options.h"
#include "util.h"

/* ── messages ── */

static sd_bus *bus;

/* A connection that is never answered: messages are made for it and read again, not sent. */
static void bus_open(void) {
    int fds[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    g_assert_cmpint(sd_bus_new(&bus), >=, 0);
    g_assert_cmpint(sd_bus_set_fd(bus, fds[0], fds[0]), >=, 0);
    g_assert_cmpint(sd_bus_start(bus), >=, 0);
    close(fds[1]);
}

static sd_bus_message *message_open(void) {
    sd_bus_message *m;

    g_assert_cmpint(sd_bus_message_new_method_call(bus, &m, "org.blockjob1", "/", "x.y", "Z"), >=,
                    0);
    g_assert_cmpint(sd_bus_message_open_container(m, 'a', "{sv}"), >=, 0);
    return m;
}

static sd_bus_message *message_close(sd_bus_message *m) {
    g_assert_cmpint(sd_bus_message_close_container(m), >=, 0);
    g_assert_cmpint(sd_bus_message_seal(m, 1, 0), >=, 0);
    g_assert_cmpint(sd_bus_message_rewind(m, true), >=, 0);
    return m;
}

/* types: of the entries, e.g. "{sv}{sv}" with key, type, value for each. */
static sd_bus_message *message(const char *types, ...) {
    sd_bus_message *m = message_open();
    va_list ap;

    va_start(ap, types);
    g_assert_cmpint(sd_bus_message_appendv(m, types, ap), >=, 0);
    va_end(ap);
    return message_close(m);
}

/* One entry with an arbitrary value of that type. */
static void append_value(sd_bus_message *m, const char *key, const char *type) {
    int r;

    if (g_str_equal(type, "s") || g_str_equal(type, "g"))
        r = sd_bus_message_append(m, "{sv}", key, type, "s");
    else if (g_str_equal(type, "o"))
        r = sd_bus_message_append(m, "{sv}", key, type, "/");
    else if (g_str_equal(type, "t") || g_str_equal(type, "x"))
        r = sd_bus_message_append(m, "{sv}", key, type, UINT64_C(512));
    else if (g_str_equal(type, "d"))
        r = sd_bus_message_append(m, "{sv}", key, type, 512.0);
    else if (g_str_equal(type, "as"))
        r = sd_bus_message_append(m, "{sv}", key, type, 1, "s");
    else if (g_str_equal(type, "v"))
        r = sd_bus_message_append(m, "{sv}", key, type, "u", 512);
    else
        r = sd_bus_message_append(m, "{sv}", key, type, 0); /* y b n q i u h */
    g_assert_cmpint(r, >=, 0);
}

/* ── readers under one type ── */

typedef union {
    CopyOptions copy;
    EndOptions end;
    AttachOptions attach;
    JournalFilter history;
    bool flag;
} Result;

typedef struct {
    const char *name;
    bool (*read)(sd_bus_message *m, Result *ret, Failure *f);
    void (*clear)(Result *r);
} Reader;

static bool read_copy(sd_bus_message *m, Result *r, Failure *f) {
    copy_options_init(&r->copy);
    return copy_options_read(m, "/srv/new.qcow2", &r->copy, f);
}
static void clear_copy(Result *r) {
    copy_options_clear(&r->copy);
}
static bool read_end(sd_bus_message *m, Result *r, Failure *f) {
    return end_options_read(m, &r->end, f);
}
static bool read_cancel(sd_bus_message *m, Result *r, Failure *f) {
    return cancel_options_read(m, &r->end, f);
}
static bool read_attach(sd_bus_message *m, Result *r, Failure *f) {
    return attach_options_read(m, &r->attach, f);
}
static void clear_attach(Result *r) {
    attach_options_clear(&r->attach);
}
static bool read_detach(sd_bus_message *m, Result *r, Failure *f) {
    return detach_options_read(m, &r->flag, f);
}
static bool read_xml(sd_bus_message *m, Result *r, Failure *f) {
    return xml_options_read(m, &r->flag, f);
}
static bool read_history(sd_bus_message *m, Result *r, Failure *f) {
    return history_filter_read(m, &r->history, f);
}
static void clear_history(Result *r) {
    journal_filter_clear(&r->history);
}
static void clear_nothing(Result *r) {
}

static const Reader copy = {"copy", read_copy, clear_copy};
static const Reader end = {"end", read_end, clear_nothing};
static const Reader cancel = {"cancel", read_cancel, clear_nothing};
static const Reader attach = {"attach", read_attach, clear_attach};
static const Reader detach = {"detach", read_detach, clear_nothing};
static const Reader xml = {"xml", read_xml, clear_nothing};
static const Reader history = {"history", read_history, clear_history};

/* m is taken. The result has to be cleared. */
static void assert_taken(const Reader *reader, sd_bus_message *m, Result *r) {
    g_autoptr(sd_bus_message) owned = m;
    g_auto(Failure) f = {0};

    memset(r, 0, sizeof(*r));
    bool taken = reader->read(owned, r, &f);
    g_assert_cmpstr(f.message, ==, NULL);
    g_assert_true(taken);
    g_assert_cmpint(sd_bus_message_at_end(owned, true), >, 0);
}

/* Refused as InvalidArgs, in a sentence that holds both texts. */
static void assert_refused(const Reader *reader, sd_bus_message *m, const char *key,
                           const char *allowed) {
    g_autoptr(sd_bus_message) owned = m;
    g_auto(Failure) f = {0};
    Result r = {0};

    bool taken = reader->read(owned, &r, &f);
    reader->clear(&r);
    g_assert_false(taken);
    g_assert_cmpint(f.kind, ==, FAILURE_INVALID_ARGS);
    g_test_message("%s", f.message);
    g_assert_nonnull(strstr(f.message, key));
    g_assert_nonnull(strstr(f.message, allowed));
    g_assert_true(g_str_has_suffix(f.message, "."));
    g_assert_true(text_is_fit(f.message, TEXT_MAX));
    g_assert_true(string_is_printable(f.message));
}

/* ── the contract: every key of every dictionary ── */

typedef struct {
    const Reader *reader;
    const char *key, *type;
} Key;

static const Key keys[] = {
    {&copy, "format", "s"},        {&copy, "existing", "b"},        {&copy, "fd", "h"},
    {&copy, "sync", "s"},          {&copy, "backing", "s"},         {&copy, "backing-format", "s"},
    {&copy, "copy-mode", "s"},     {&copy, "speed", "t"},           {&copy, "granularity", "u"},
    {&copy, "buf-size", "t"},      {&copy, "on-source-error", "s"}, {&copy, "on-target-error", "s"},
    {&copy, "on-ready", "s"},      {&copy, "cluster-size", "u"},    {&copy, "preallocation", "s"},
    {&copy, "discard", "s"},       {&copy, "detect-zeroes", "s"},   {&copy, "cache", "s"},
    {&copy, "aio", "s"},           {&copy, "pause-guest", "b"},     {&copy, "max-pause", "t"},
    {&copy, "delete-source", "b"}, {&copy, "delete-target", "b"},   {&copy, "force", "b"},
    {&copy, "request-id", "s"},    {&end, "pause-guest", "b"},      {&end, "max-pause", "t"},
    {&cancel, "force", "b"},       {&cancel, "delete-target", "b"}, {&attach, "fd", "h"},
    {&attach, "definition", "s"},  {&detach, "force", "b"},         {&xml, "persistent", "b"},
    {&history, "domain", "s"},     {&history, "disk", "s"},         {&history, "kind", "s"},
    {&history, "result", "s"},     {&history, "since", "t"},        {&history, "until", "t"},
    {&history, "limit", "u"},
};

static void wrong_types_are_refused(void) {
    static const char *const types[] = {"y", "b", "n", "q", "i", "u", "x",  "t",
                                        "d", "s", "o", "g", "h", "v", "as", "a{sv}"};

    for (size_t k = 0; k < G_N_ELEMENTS(keys); k++)
        for (size_t t = 0; t < G_N_ELEMENTS(types); t++) {
            if (g_str_equal(types[t], keys[k].type))
                continue;
            sd_bus_message *m = message_open();
            append_value(m, keys[k].key, types[t]);
            g_autofree char *wanted = g_strdup_printf("D-Bus type %s", keys[k].type);
            assert_refused(keys[k].reader, message_close(m), keys[k].key, wanted);
        }
}

static void long_types_are_not_repeated(void) {
    const char *type = "(ssssssssssssssssssssssssssssssssssss)";
    sd_bus_message *m = message_open();

    g_assert_cmpint(sd_bus_message_open_container(m, 'e', "sv"), >=, 0);
    g_assert_cmpint(sd_bus_message_append(m, "s", "speed"), >=, 0);
    g_assert_cmpint(sd_bus_message_open_container(m, 'v', type), >=, 0);
    g_assert_cmpint(sd_bus_message_open_container(m, 'r', "ssssssssssssssssssssssssssssssssssss"),
                    >=, 0);
    for (int i = 0; i < 36; i++)
        g_assert_cmpint(sd_bus_message_append(m, "s", "x"), >=, 0);
    for (int i = 0; i < 3; i++)
        g_assert_cmpint(sd_bus_message_close_container(m), >=, 0);
    assert_refused(&copy, message_close(m), "speed", "…");
}

static void duplicates_are_refused(void) {
    for (size_t k = 0; k < G_N_ELEMENTS(keys); k++) {
        if (g_str_equal(keys[k].type, "s"))
            continue; /* each has words of its own: below */
        sd_bus_message *m = message_open();
        for (int i = 0; i < 2; i++)
            if (g_str_equal(keys[k].key, "limit"))
                g_assert_cmpint(sd_bus_message_append(m, "{sv}", "limit", "u", 1), >=, 0);
            else
                append_value(m, keys[k].key, keys[k].type);
        assert_refused(keys[k].reader, message_close(m), keys[k].key, "given twice");
    }
    assert_refused(
        &copy,
        message("{sv}{sv}{sv}", "format", "s", "raw", "force", "b", 1, "format", "s", "qcow2"),
        "format", "given twice");
    assert_refused(&history, message("{sv}{sv}", "disk", "s", "vda", "disk", "s", "vda"), "disk",
                   "given twice");
}

static void unknown_keys_are_refused_and_the_known_ones_named(void) {
    static const Reader *const readers[] = {&copy, &end, &cancel, &attach, &detach, &xml, &history};

    for (size_t i = 0; i < G_N_ELEMENTS(readers); i++) {
        assert_refused(readers[i], message("{sv}", "colour", "s", "red"), "\"colour\"",
                       "the options are: ");
        assert_refused(readers[i], message("{sv}", "", "s", "red"), "\"\"", "the options are: ");
        for (size_t k = 0; k < G_N_ELEMENTS(keys); k++)
            if (keys[k].reader == readers[i])
                assert_refused(readers[i], message("{sv}", "Force", "b", 1), "\"Force\"",
                               keys[k].key);
    }
    /* A key is quoted without what a terminal would act on, and not at length. */
    assert_refused(&copy, message("{sv}", "a\033[31mb", "b", 1), "\"a[31mb\"", "speed");
    g_autofree char *endless = g_strnfill(100000, 'k');
    assert_refused(&copy, message("{sv}", endless, "b", 1), "kkkk", "speed");
}

static sd_bus_message *many(unsigned n) {
    sd_bus_message *m = message_open();

    for (unsigned i = 0; i < n; i++) {
        g_autofree char *key = g_strdup_printf("key%u", i);
        append_value(m, key, "as");
    }
    return message_close(m);
}

static void at_most_64_keys_are_read(void) {
    assert_refused(&copy, many(64), "key0", "no option");
    assert_refused(&copy, many(65), "64", "At most");
    assert_refused(&copy, many(10000), "64", "At most");
    assert_refused(&detach, many(65), "64", "At most");
}

/* ── values ── */

static void copy_without_options_has_the_defaults(void) {
    Result r;
    g_auto(CopyOptions) defaults;

    copy_options_init(&defaults);
    assert_taken(&copy, message(""), &r);
    g_assert_cmpstr(r.copy.target, ==, "/srv/new.qcow2");
    g_assert_cmpint(r.copy.fd, ==, -1);
    g_assert_null(r.copy.format);
    g_assert_null(r.copy.request_id);
    g_assert_cmpint(r.copy.on_ready, ==, ON_READY_WAIT);
    g_assert_true(r.copy.pause_guest == defaults.pause_guest);
    g_assert_true(r.copy.delete_target == defaults.delete_target);
    g_assert_cmpuint(r.copy.max_pause, ==, defaults.max_pause);
    g_assert_false(r.copy.existing || r.copy.force || r.copy.delete_source);
    copy_options_clear(&r.copy);
}

static void every_key_of_copy_arrives_in_its_field(void) {
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    sd_bus_message *m = message_open();
    Result r;

    g_assert_cmpint(sd_bus_message_append(
                        m, "{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}", "format", "s",
                        "raw", "existing", "b", 1, "fd", "h", fd, "sync", "s", "top", "backing",
                        "s", "/srv/base.img", "backing-format", "s", "qcow2", "copy-mode", "s",
                        "write-blocking", "speed", "t", UINT64_C(1000), "granularity", "u", 65536,
                        "buf-size", "t", UINT64_C(2000), "on-source-error", "s", "report",
                        "on-target-error", "s", "enospc", "on-ready", "s", "finish"),
                    >=, 0);
    g_assert_cmpint(sd_bus_message_append(m, "{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}{sv}",
                                          "cluster-size", "u", 4096, "preallocation", "s", "falloc",
                                          "discard", "s", "ignore", "detect-zeroes", "s", "off",
                                          "cache", "s", "writeback", "aio", "s", "threads",
                                          "pause-guest", "b", 0, "max-pause", "t", UINT64_C(3000),
                                          "delete-source", "b", 1, "delete-target", "b", 0, "force",
                                          "b", 1, "request-id", "s", "nightly 7"),
                    >=, 0);
    message_close(m);
    sd_bus_message_ref(m);
    assert_taken(&copy, m, &r);

    const CopyOptions *o = &r.copy;
    g_assert_cmpstr(o->format, ==, "raw");
    g_assert_true(o->existing && o->force && o->delete_source);
    g_assert_false(o->pause_guest || o->delete_target);
    g_assert_cmpint(o->fd, >=, 0);
    g_assert_cmpint(fcntl(o->fd, F_GETFD), >=, 0);
    g_assert_cmpstr(o->sync, ==, "top");
    g_assert_cmpstr(o->backing, ==, "/srv/base.img");
    g_assert_cmpstr(o->backing_format, ==, "qcow2");
    g_assert_cmpstr(o->copy_mode, ==, "write-blocking");
    g_assert_cmpuint(o->speed, ==, 1000);
    g_assert_cmpuint(o->granularity, ==, 65536);
    g_assert_cmpuint(o->buf_size, ==, 2000);
    g_assert_cmpstr(o->on_source_error, ==, "report");
    g_assert_cmpstr(o->on_target_error, ==, "enospc");
    g_assert_cmpint(o->on_ready, ==, ON_READY_FINISH);
    g_assert_cmpuint(o->cluster_size, ==, 4096);
    g_assert_cmpstr(o->preallocation, ==, "falloc");
    g_assert_cmpstr(o->discard, ==, "ignore");
    g_assert_cmpstr(o->detect_zeroes, ==, "off");
    g_assert_cmpstr(o->cache, ==, "writeback");
    g_assert_cmpstr(o->aio, ==, "threads");
    g_assert_cmpuint(o->max_pause, ==, 3000);
    g_assert_cmpstr(o->request_id, ==, "nightly 7");
    copy_options_clear(&r.copy);
    sd_bus_message_unref(m);
    close(fd);
}

static void a_message_can_be_read_again(void) {
    sd_bus_message *m = message("{sv}{sv}", "speed", "t", UINT64_C(7), "format", "s", "raw");
    Result r;

    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(sd_bus_message_rewind(m, true), >=, 0);
        assert_taken(&copy, sd_bus_message_ref(m), &r);
        g_assert_cmpuint(r.copy.speed, ==, 7);
        copy_options_clear(&r.copy);
    }
    sd_bus_message_unref(m);
}

typedef struct {
    const Reader *reader;
    const char *key;
    bool wide; /* t, else u */
    uint64_t value;
    const char *refused; /* a part of the sentence; NULL = taken */
} Number;

static const Number numbers[] = {
    {&copy, "speed", true, 0, NULL},
    {&copy, "speed", true, INT64_MAX, NULL},
    {&copy, "speed", true, (uint64_t) INT64_MAX + 1, "from 0 to 9223372036854775807 bytes per"},
    {&copy, "speed", true, UINT64_MAX, "from 0"},
    {&copy, "granularity", false, 0, NULL},
    {&copy, "granularity", false, 1, "0 or a power of two from 512 to 67108864 bytes, not 1"},
    {&copy, "granularity", false, 256, "from 512"},
    {&copy, "granularity", false, 511, "from 512"},
    {&copy, "granularity", false, 512, NULL},
    {&copy, "granularity", false, 513, "a power of two"},
    {&copy, "granularity", false, 1536, "a power of two"},
    {&copy, "granularity", false, 67108863, "a power of two"},
    {&copy, "granularity", false, 67108864, NULL},
    {&copy, "granularity", false, 67108865, "to 67108864"},
    {&copy, "granularity", false, 134217728, "to 67108864"},
    {&copy, "granularity", false, UINT32_MAX, "to 67108864"},
    {&copy, "cluster-size", false, 0, NULL},
    {&copy, "cluster-size", false, 256, "from 512 to 2097152 bytes"},
    {&copy, "cluster-size", false, 512, NULL},
    {&copy, "cluster-size", false, 65537, "a power of two"},
    {&copy, "cluster-size", false, 2097152, NULL},
    {&copy, "cluster-size", false, 4194304, "from 512 to 2097152 bytes"},
    {&copy, "buf-size", true, 0, NULL},
    {&copy, "buf-size", true, 1073741824, NULL},
    {&copy, "buf-size", true, 1073741825, "from 0 to 1073741824 bytes"},
    {&copy, "buf-size", true, UINT64_MAX, "from 0 to 1073741824 bytes"},
    {&copy, "max-pause", true, 0, NULL},
    {&copy, "max-pause", true, INT64_MAX, NULL},
    {&copy, "max-pause", true, (uint64_t) INT64_MAX + 1, "microseconds"},
    {&end, "max-pause", true, 0, NULL},
    {&end, "max-pause", true, INT64_MAX, NULL},
    {&end, "max-pause", true, UINT64_MAX, "microseconds"},
    {&history, "since", true, 0, NULL},
    {&history, "since", true, INT64_MAX, NULL},
    {&history, "since", true, (uint64_t) INT64_MAX + 1, "microseconds"},
    {&history, "until", true, INT64_MAX, NULL},
    {&history, "until", true, (uint64_t) INT64_MAX + 1, "microseconds"},
    {&history, "limit", false, 0, "from 1 to 10000 jobs, not 0"},
    {&history, "limit", false, 1, NULL},
    {&history, "limit", false, 10000, NULL},
    {&history, "limit", false, 10001, "from 1 to 10000 jobs, not 10001"},
};

static void numbers_are_taken_within_their_range_only(void) {
    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
        const Number *n = &numbers[i];
        sd_bus_message *m = n->wide ? message("{sv}", n->key, "t", n->value)
                                    : message("{sv}", n->key, "u", (uint32_t) n->value);
        Result r;

        if (n->refused) {
            assert_refused(n->reader, m, n->key, n->refused);
        } else {
            assert_taken(n->reader, m, &r);
            n->reader->clear(&r);
        }
    }
}

static void words_are_taken_from_the_list_only(void) {
    static const struct {
        const char *key, *words[5], *listed;
    } lists[] = {
        {"format", {"qcow2", "raw"}, "\"qcow2\" or \"raw\""},
        {"sync", {"full", "top", "none"}, "\"full\", \"top\" or \"none\""},
        {"backing-format", {"qcow2", "raw"}, "\"qcow2\" or \"raw\""},
        {"copy-mode", {"background", "write-blocking"}, "\"write-blocking\""},
        {"on-source-error", {"stop", "report", "enospc"}, "\"enospc\""},
        {"on-target-error", {"stop", "report", "enospc"}, "\"enospc\""},
        {"on-ready", {"wait", "pivot", "finish"}, "\"wait\", \"pivot\" or \"finish\""},
        {"preallocation", {"off", "metadata", "falloc", "full"}, "\"falloc\" or \"full\""},
        {"discard", {"unmap", "ignore"}, "\"unmap\" or \"ignore\""},
        {"detect-zeroes", {"unmap", "on", "off"}, "\"unmap\", \"on\" or \"off\""},
        {"cache", {"direct", "writeback"}, "\"direct\" or \"writeback\""},
        {"aio", {"native", "threads"}, "\"native\" or \"threads\""},
    };
    Result r;

    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
        for (size_t w = 0; lists[i].words[w]; w++) {
            assert_taken(&copy, message("{sv}", lists[i].key, "s", lists[i].words[w]), &r);
            copy_options_clear(&r.copy);
            g_autofree char *upper = g_ascii_strup(lists[i].words[w], -1);
            g_autofree char *longer = g_strconcat(lists[i].words[w], " ", NULL);
            assert_refused(&copy, message("{sv}", lists[i].key, "s", upper), lists[i].key,
                           lists[i].listed);
            assert_refused(&copy, message("{sv}", lists[i].key, "s", longer), lists[i].key,
                           lists[i].listed);
        }
        assert_refused(&copy, message("{sv}", lists[i].key, "s", ""), lists[i].key,
                       lists[i].listed);
        assert_refused(&copy, message("{sv}", lists[i].key, "s", "vmdk,if=none\n"), lists[i].key,
                       "not \"vmdk,if=none\"");
    }
}

static void index_of_a_word_is_the_enum(void) {
    Result r;

    for (OnReady i = 0; i < _ON_READY_MAX; i++) {
        assert_taken(&copy, message("{sv}", "on-ready", "s", on_ready_words[i]), &r);
        g_assert_cmpint(r.copy.on_ready, ==, i);
        copy_options_clear(&r.copy);
    }
}

static void strings_have_a_length_and_no_control_characters(void) {
    static const char *const bad[] = {
        "", "a\n", "\t", "\033[2J", "a\x7f", "\xc2\x85", "a\xe2\x80\x8f", "\xe2\x80\xae"};
    g_autofree char *sixty_four = g_strnfill(64, 'x'), *sixty_five = g_strnfill(65, 'x');
    g_autofree char *longest = g_strnfill(4096, 'x'), *too_long = g_strnfill(4097, 'x');
    GString *wide = g_string_new(NULL);
    Result r;

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_refused(&copy, message("{sv}", "request-id", "s", bad[i]), "request-id",
                       "1 to 64 characters");
        assert_refused(&history, message("{sv}", "domain", "s", bad[i]), "domain", "control");
    }
    assert_taken(&copy, message("{sv}", "request-id", "s", sixty_four), &r);
    copy_options_clear(&r.copy);
    assert_refused(&copy, message("{sv}", "request-id", "s", sixty_five), "request-id", "64");

    for (int i = 0; i < 64; i++)
        g_string_append(wide, "ü");
    assert_taken(&copy, message("{sv}", "request-id", "s", wide->str), &r);
    g_assert_cmpstr(r.copy.request_id, ==, wide->str);
    copy_options_clear(&r.copy);
    g_string_append(wide, "ü");
    assert_refused(&copy, message("{sv}", "request-id", "s", wide->str), "request-id", "64");
    g_string_free(wide, TRUE);

    assert_taken(&history, message("{sv}", "disk", "s", longest), &r);
    journal_filter_clear(&r.history);
    assert_refused(&history, message("{sv}", "disk", "s", too_long), "disk", "4096");
}

static void paths_are_absolute_and_plain(void) {
    static const char *const good[] = {"/", "/a", "/a/..b/c", "/a../b", "/...", "/srv/bäse.img"};
    static const char *const bad[] = {"",        "a",       "./a",      "../a", "/..",
                                      "/a/..",   "/../a",   "/a/../b",  "/a\n", "json:{}",
                                      "nbd:x:1", "/a\033b", "file:///a"};
    g_autofree char *longest = g_strnfill(4095, '/'), *too_long = g_strnfill(4096, '/');
    Result r;

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        assert_taken(&attach, message("{sv}", "definition", "s", good[i]), &r);
        g_assert_cmpstr(r.attach.definition, ==, good[i]);
        attach_options_clear(&r.attach);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_refused(&attach, message("{sv}", "definition", "s", bad[i]), "definition",
                       "an absolute path");
        assert_refused(&copy, message("{sv}", "backing", "s", bad[i]), "backing",
                       "an absolute path");
    }
    assert_taken(&attach, message("{sv}", "definition", "s", longest), &r);
    attach_options_clear(&r.attach);
    assert_refused(&attach, message("{sv}", "definition", "s", too_long), "definition", "4095");
}

static void an_endless_target_is_refused(void) {
    g_auto(CopyOptions) o;
    g_auto(Failure) f = {0};
    g_autofree char *target = g_strnfill(4097, '/');
    g_autoptr(sd_bus_message) m = message("");

    copy_options_init(&o);
    g_assert_false(copy_options_read(m, target, &o, &f));
    g_assert_cmpint(f.kind, ==, FAILURE_INVALID_ARGS);
}

static void what_was_read_before_a_refusal_is_freed(void) {
    assert_refused(&copy,
                   message("{sv}{sv}{sv}{sv}", "format", "s", "raw", "backing", "s", "/b",
                           "request-id", "s", "r", "speed", "s", "fast"),
                   "speed", "D-Bus type t");
    assert_refused(&history, message("{sv}{sv}", "domain", "s", "web", "limit", "u", 0), "limit",
                   "10000");
}

static void the_other_dictionaries_arrive_too(void) {
    Result r;

    assert_taken(&end, message(""), &r);
    g_assert_cmpint(r.end.pause_guest, ==, -1);
    g_assert_cmpint(r.end.delete_target, ==, -1);
    g_assert_cmpuint(r.end.max_pause, ==, UINT64_MAX);
    g_assert_false(r.end.force);
    assert_taken(&end, message("{sv}{sv}", "pause-guest", "b", 0, "max-pause", "t", UINT64_C(5)),
                 &r);
    g_assert_cmpint(r.end.pause_guest, ==, 0);
    g_assert_cmpuint(r.end.max_pause, ==, 5);
    assert_taken(&cancel, message("{sv}{sv}", "force", "b", 1, "delete-target", "b", 1), &r);
    g_assert_true(r.end.force);
    g_assert_cmpint(r.end.delete_target, ==, 1);
    assert_refused(&cancel, message("{sv}", "max-pause", "t", UINT64_C(5)), "max-pause", "force");
    assert_refused(&end, message("{sv}", "force", "b", 1), "force", "pause-guest");

    assert_taken(&detach, message(""), &r);
    g_assert_false(r.flag);
    assert_taken(&detach, message("{sv}", "force", "b", 1), &r);
    g_assert_true(r.flag);
    assert_taken(&xml, message("{sv}", "persistent", "b", 1), &r);
    g_assert_true(r.flag);
    assert_taken(&attach, message(""), &r);
    g_assert_cmpint(r.attach.fd, ==, -1);
    g_assert_null(r.attach.definition);

    assert_taken(&history, message(""), &r);
    g_assert_cmpuint(r.history.limit, ==, 100);
    assert_taken(&history,
                 message("{sv}{sv}{sv}{sv}{sv}{sv}{sv}", "domain", "s", "web", "disk", "s", "vda",
                         "kind", "s", "copy", "result", "s", "lost", "since", "t", UINT64_C(1),
                         "until", "t", UINT64_C(2), "limit", "u", 3),
                 &r);
    g_assert_cmpstr(r.history.domain, ==, "web");
    g_assert_cmpstr(r.history.disk, ==, "vda");
    g_assert_cmpstr(r.history.kind, ==, "copy");
    g_assert_cmpstr(r.history.result, ==, "lost");
    g_assert_cmpuint(r.history.since, ==, 1);
    g_assert_cmpuint(r.history.until, ==, 2);
    g_assert_cmpuint(r.history.limit, ==, 3);
    journal_filter_clear(&r.history);
}

/* ── text ── */

static void text_that_dbus_does_not_take_is_made_fit(void) {
    static const struct {
        const char *given, *fit; /* fit NULL = as given */
    } texts[] = {
        {"", NULL},
        {"plain", NULL},
        {"zwölf Boxkämpfer", NULL},
        {"\xf0\x9f\x92\xbe", NULL},
        {"control\tis text", NULL},
        {"a\xef\xbf\xbe", "a"}, /* U+FFFE */
        {"a\xef\xbf\xbf"
         "b",
         "ab"},                             /* U+FFFF */
        {"\xef\xb7\x90x\xef\xb7\xaf", "x"}, /* U+FDD0, U+FDEF */
        {"\xf0\x9f\xbf\xbe", ""},           /* U+1FFFE */
        {"\xff", "\xef\xbf\xbd"},
        {"a\xc3", "a\xef\xbf\xbd"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autofree char *fit = text_make_fit(texts[i].given, TEXT_MAX);
        g_autoptr(sd_bus_message) m = message_open();

        g_assert_true(text_is_fit(texts[i].given, TEXT_MAX) == (texts[i].fit == NULL));
        if (texts[i].fit)
            g_assert_cmpstr(fit, ==, texts[i].fit);
        /* sd-bus is the judge. */
        g_assert_true((sd_bus_message_append(m, "{sv}", "k", "s", texts[i].given) >= 0) ==
                      (texts[i].fit == NULL));
        g_assert_true(text_is_fit(fit, TEXT_MAX));
    }
}

static void text_is_cut_at_a_character(void) {
    g_autofree char *fit = text_make_fit("aüü", 4);

    g_assert_cmpstr(fit, ==, "aü");
    g_assert_true(text_is_fit("abcd", 4));
    g_assert_false(text_is_fit("abcde", 4));
    g_assert_true(text_is_fit("aüx", 4));
    g_assert_false(text_is_fit("aüü", 4));
}

static void failures_become_errors_with_their_name(void) {
    for (FailureKind k = FAILURE_NONE + 1; k < _FAILURE_MAX; k++) {
        g_auto(Failure) f = {0};
        g_auto(sd_bus_error) error = SD_BUS_ERROR_NULL;

        failure_set(&f, k, "QEMU says: a\nb\xff.");
        g_assert_cmpint(bus_fail(&error, &f), <, 0);
        g_assert_cmpstr(error.name, ==, failure_name(k));
        g_assert_cmpstr(error.message, ==, "QEMU says: ab\xef\xbf\xbd.");
    }
}

int main(int argc, char **argv) {
    g_test_init(&argc, &argv, NULL);
    bus_open();
#define TEST(name) g_test_add_func("/options/" #name, name)
    TEST(copy_without_options_has_the_defaults);
    TEST(every_key_of_copy_arrives_in_its_field);
    TEST(a_message_can_be_read_again);
    TEST(the_other_dictionaries_arrive_too);
    TEST(wrong_types_are_refused);
    TEST(long_types_are_not_repeated);
    TEST(duplicates_are_refused);
    TEST(unknown_keys_are_refused_and_the_known_ones_named);
    TEST(at_most_64_keys_are_read);
    TEST(numbers_are_taken_within_their_range_only);
    TEST(words_are_taken_from_the_list_only);
    TEST(index_of_a_word_is_the_enum);
    TEST(strings_have_a_length_and_no_control_characters);
    TEST(paths_are_absolute_and_plain);
    TEST(an_endless_target_is_refused);
    TEST(what_was_read_before_a_refusal_is_freed);
    TEST(text_that_dbus_does_not_take_is_made_fit);
    TEST(text_is_cut_at_a_character);
    TEST(failures_become_errors_with_their_name);
    int r = g_test_run();
    sd_bus_unref(bus);
    return r;
}
