/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Linked into the targets that read JSON: mutations that are JSON afterwards, for bytes changed at random hardly ever
 * come past the parser. */

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
/* Called by libFuzzer. Changes some values of the document in data, or of one line of it where that is the document. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

static json_t *value_random(GRand *rand) {
    static const char *const values[] = {"null",
                                         "true",
                                         "false",
                                         "-1",
                                         "0",
                                         "1",
                                         "9223372036854775807",
                                         "1e300",
                                         "\"\"",
                                         "\"a\"",
                                         "\"file\"",
                                         "[]",
                                         "{}",
                                         "[[[]]]",
                                         "[{}]",
                                         "\"backing\"",
                                         "\"#block123\"",
                                         "\"throttle\"",
                                         "\"standby\"",
                                         "\"concluded\"",
                                         "-9223372036854775808"};

    return json_loads(values[g_rand_int_range(rand, 0, G_N_ELEMENTS(values))], JSON_DECODE_ANY,
                      NULL);
}

static json_t *text_mutated(const json_t *text) {
    uint8_t bytes[256];
    size_t size = MIN(json_string_length(text), sizeof bytes / 2);

    memcpy(bytes, json_string_value(text), size);
    size = LLVMFuzzerMutate(bytes, size, sizeof bytes);
    return json_stringn((char *) bytes, size) ?: json_string("\xc3\xa4");
}

/* Another value anywhere in the document, so that names meet their like. */
static json_t *value_borrowed(json_t *root, GRand *rand) {
    json_t *value = root;

    for (;;) {
        size_t n = json_is_object(value) ? json_object_size(value) : json_array_size(value);
        if (n == 0 || (value != root && g_rand_int_range(rand, 0, 6) == 0))
            return json_deep_copy(value);
        size_t at = (size_t) g_rand_int_range(rand, 0, (gint32) n);
        if (json_is_array(value)) {
            value = json_array_get(value, at);
            continue;
        }
        void *member = json_object_iter(value);
        while (at-- > 0)
            member = json_object_iter_next(value, member);
        value = json_object_iter_value(member);
    }
}

static json_t *value_other(json_t *root, const json_t *old, GRand *rand) {
    switch (g_rand_int_range(rand, 0, 3)) {
    case 0:
        return value_borrowed(root, rand);
    case 1:
        if (json_is_string(old))
            return text_mutated(old);
        if (json_is_integer(old))
            return json_integer(json_integer_value(old) ^
                                ((json_int_t) 1 << g_rand_int_range(rand, 0, 63)));
        return value_random(rand);
    default:
        return value_random(rand);
    }
}

static void change_object(json_t *root, json_t *object, GRand *rand, void *member) {
    switch (g_rand_int_range(rand, 0, 6)) {
    case 0:
        json_object_del(object, json_object_iter_key(member));
        break;
    case 1: {
        json_t *name = json_string(json_object_iter_key(member)), *other = text_mutated(name);
        json_object_set(object, json_string_value(other), json_object_iter_value(member));
        json_decref(name);
        json_decref(other);
        break;
    }
    default:
        json_object_iter_set_new(object, member,
                                 value_other(root, json_object_iter_value(member), rand));
    }
}

static void change_array(json_t *root, json_t *array, GRand *rand, size_t at) {
    switch (g_rand_int_range(rand, 0, 6)) {
    case 0:
        json_array_remove(array, at);
        break;
    case 1:
        json_array_insert_new(array, at, json_deep_copy(json_array_get(array, at)));
        break;
    default:
        json_array_set_new(array, at, value_other(root, json_array_get(array, at), rand));
    }
}

/* Goes down to some member and changes it. */
static void change(json_t *root, GRand *rand) {
    json_t *value = root;

    for (;;) {
        bool object = json_is_object(value);
        size_t n = object ? json_object_size(value) : json_array_size(value);
        if (n == 0)
            return;
        size_t at = (size_t) g_rand_int_range(rand, 0, (gint32) n);
        void *member = object ? json_object_iter(value) : NULL;
        for (size_t i = 0; object && i < at; i++)
            member = json_object_iter_next(value, member);
        json_t *child = object ? json_object_iter_value(member) : json_array_get(value, at);
        bool deeper = json_object_size(child) > 0 || json_array_size(child) > 0;
        if (deeper && g_rand_int_range(rand, 0, 8) != 0) {
            value = child;
            continue;
        }
        if (object)
            change_object(root, value, rand, member);
        else
            change_array(root, value, rand, at);
        return;
    }
}

/* Puts text in the place of the bytes from begin to end; the new size, 0 when it does not fit. */
static size_t replace(uint8_t *data, size_t size, size_t max, size_t begin, size_t end,
                      const char *text) {
    size_t length = strlen(text), result = size - (end - begin) + length;

    if (result > max)
        return 0;
    memmove(data + begin + length, data + end, size - end);
    memcpy(data + begin, text, length);
    return result;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    size_t begin = 0, end = size, result = 0;

    if (g_rand_int_range(rand, 0, 10) == 0)
        return LLVMFuzzerMutate(data, size, max);
    json_t *root = json_loadb((char *) data, size, JSON_DECODE_ANY, NULL);
    if (!root && size > 0) {
        begin = end = (size_t) g_rand_int_range(rand, 0, (gint32) size);
        while (begin > 0 && data[begin - 1] != '\n')
            begin--;
        while (end < size && data[end] != '\n')
            end++;
        root = json_loadb((char *) data + begin, end - begin, JSON_DECODE_ANY, NULL);
    }
    if (!root)
        return LLVMFuzzerMutate(data, size, max);
    for (int n = g_rand_int_range(rand, 1, 4); n > 0; n--)
        change(root, rand);
    char *text = json_dumps(root, JSON_COMPACT | JSON_ENCODE_ANY);
    if (text)
        result = replace(data, size, max, begin, end, text);
    free(text);
    json_decref(root);
    return result ?: LLVMFuzzerMutate(data, size, max);
}
