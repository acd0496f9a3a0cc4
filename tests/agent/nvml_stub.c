/* A libnvidia-ml.so.1 that is steered by a file, so that NVIDIA's real bindings and hutch's real
 * code run without a card. It has the functions that hutch calls, under the names by which the
 * bindings look for them, with the structures of nvml.h.
 *
 * The file (NVML_STUB) is read at every call, one line for each thing:
 *
 *   init ERROR                     what nvmlInit answers; 0 if left out
 *   gpu PCI KEY=VALUE ...          a card: uuid name util total used reserved temp power ecc
 *                                  pending failed, procs=PID:BYTES,... draws=PID:BYTES,...
 *                                  error=N: everything about it answers N
 *                                  no=KEY: that is not supported; may be given several times
 *
 * Each call is counted in the file NVML_STUB.log, a line with its name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, NO_MORE = 64
};

typedef unsigned long long ull;
typedef struct { unsigned int gpu, memory; } utilization_t;
typedef struct { ull total, free, used; } memory_t;
typedef struct { unsigned int version; ull total, reserved, free, used; } memory_v2_t;
typedef struct {
    unsigned int pid;
    ull used;
    unsigned int gpu_instance, compute_instance;
} process_t;

static int open_count = 0;
/* A handle is a pointer to the address that it was asked for by. */
static char addresses[NO_MORE][32];

static void count(const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s.log", getenv("NVML_STUB"));
    FILE *file = fopen(path, "a");
    if (file) {
        fprintf(file, "%s\n", name);
        fclose(file);
    }
}

/* The line that begins with these words; 0 when there is none. */
static int find(const char *first, const char *second, char *line, int size) {
    FILE *file = fopen(getenv("NVML_STUB"), "r");
    int found = 0;
    while (file && !found && fgets(line, size, file)) {
        char one[64] = "", two[64] = "";
        sscanf(line, "%63s %63s", one, two);
        found = !strcmp(one, first) && (!second || !strcasecmp(two, second));
    }
    if (file) fclose(file);
    return found;
}

/* The address without what differs in its spelling: the domain has four digits or eight. */
static const char *plain(const char *address) {
    const char *colon = strchr(address, ':');
    return colon ? colon + 1 : address;
}

static int card(const char *address, char *line, int size) {
    FILE *file = fopen(getenv("NVML_STUB"), "r");
    int found = 0;
    while (file && !found && fgets(line, size, file)) {
        char word[64] = "", at[64] = "";
        sscanf(line, "%63s %63s", word, at);
        found = !strcmp(word, "gpu") && !strcasecmp(plain(at), plain(address));
    }
    if (file) fclose(file);
    return found;
}

/* The value of a key of a card's line, or NULL. The text is the caller's until the next call. */
static const char *value(char *line, const char *key) {
    static char copy[8192];
    char *rest = NULL;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok_r(copy, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
        char *equals = strchr(word, '=');
        if (equals) {
            *equals = 0;
            if (!strcmp(word, key)) return equals + 1;
        }
    }
    return NULL;
}

static int without(const char *line, const char *key) {
    char word[64];
    snprintf(word, sizeof word, " no=%s", key);
    const char *at = strstr(line, word);
    return at && (at[strlen(word)] == ' ' || at[strlen(word)] == '\n');
}

/* What a call about `key` of a card answers, and the card's line. */
static int ask(const char *handle, const char *key, char *line, int size) {
    if (!open_count) return UNINITIALIZED;
    if (!card(handle, line, size)) return 15; /* GPU_IS_LOST */
    const char *error = value(line, "error");
    if (error) return atoi(error);
    return without(line, key) ? NOT_SUPPORTED : SUCCESS;
}

static ull number(char *line, const char *key) {
    const char *text = value(line, key);
    return text ? strtoull(text, NULL, 10) : 0;
}

int nvmlInitWithFlags(unsigned int flags) {
    char line[256];
    (void)flags;
    count("init");
    if (find("init", NULL, line, sizeof line)) {
        int error = atoi(line + 5);
        if (error) return error;
    }
    open_count++;
    return SUCCESS;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    count("shutdown");
    if (!open_count) return UNINITIALIZED;
    open_count--;
    return SUCCESS;
}

const char *nvmlErrorString(int error) {
    return error == 999 ? "Unknown Error" : "An error of the stub";
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *address, void **handle) {
    char line[8192];
    count("handle");
    if (!open_count) return UNINITIALIZED;
    if (!card(address, line, sizeof line)) return NOT_FOUND;
    const char *error = value(line, "error");
    if (error) return atoi(error);
    for (int i = 0; i < NO_MORE; i++) {
        if (!addresses[i][0]) snprintf(addresses[i], sizeof addresses[i], "%s", address);
        if (!strcmp(addresses[i], address)) {
            *handle = addresses[i];
            return SUCCESS;
        }
    }
    return INVALID_ARGUMENT;
}

static int text(void *handle, const char *key, char *into, unsigned int size) {
    char line[8192];
    int error = ask(handle, key, line, sizeof line);
    if (error) return error;
    const char *found = value(line, key);
    snprintf(into, size, "%s", found ? found : "");
    for (char *at = into; *at; at++)
        if (*at == '_') *at = ' ';
    return SUCCESS;
}

int nvmlDeviceGetName(void *handle, char *name, unsigned int size) {
    return text(handle, "name", name, size);
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned int size) {
    return text(handle, "uuid", uuid, size);
}

int nvmlDeviceGetUtilizationRates(void *handle, utilization_t *rates) {
    char line[8192];
    int error = ask(handle, "util", line, sizeof line);
    if (error) return error;
    rates->gpu = (unsigned int)number(line, "util");
    rates->memory = 0;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    char line[8192];
    int error = ask(handle, "used", line, sizeof line);
    if (error) return error;
    memory->total = number(line, "total");
    /* The first version counts what the driver has reserved as used. */
    memory->used = number(line, "used") + number(line, "reserved");
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2_t *memory) {
    char line[8192];
    if (memory->version != (sizeof *memory | (2u << 24))) return 25; /* VERSION_MISMATCH */
    int error = ask(handle, "used", line, sizeof line);
    if (error) return error;
    if (without(line, "memory_v2")) return NOT_SUPPORTED;
    memory->total = number(line, "total");
    memory->reserved = number(line, "reserved");
    memory->used = number(line, "used");
    memory->free = memory->total - memory->used - memory->reserved;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned int *degrees) {
    char line[8192];
    (void)sensor;
    int error = ask(handle, "temp", line, sizeof line);
    if (error) return error;
    *degrees = (unsigned int)number(line, "temp");
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned int *milliwatts) {
    char line[8192];
    int error = ask(handle, "power", line, sizeof line);
    if (error) return error;
    *milliwatts = (unsigned int)number(line, "power");
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(void *handle, int kind, int counter, ull *errors) {
    char line[8192];
    /* Uncorrected ones, since the last reset. */
    if (kind != 1 || counter != 0) return INVALID_ARGUMENT;
    int error = ask(handle, "ecc", line, sizeof line);
    if (error) return error;
    *errors = number(line, "ecc");
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(
    void *handle, unsigned int *correctable, unsigned int *uncorrectable, unsigned int *pending,
    unsigned int *failed
) {
    char line[8192];
    int error = ask(handle, "rows", line, sizeof line);
    if (error) return error;
    *correctable = *uncorrectable = 0;
    *pending = (unsigned int)number(line, "pending");
    *failed = (unsigned int)number(line, "failed");
    return SUCCESS;
}

static int processes(void *handle, const char *key, unsigned int *size, process_t *found) {
    char line[8192], list[4096];
    int error = ask(handle, key, line, sizeof line);
    if (error) return error;
    const char *told = value(line, key);
    snprintf(list, sizeof list, "%s", told ? told : "");
    unsigned int n = 0;
    char *rest = NULL;
    for (char *word = strtok_r(list, ",", &rest); word; word = strtok_r(NULL, ",", &rest), n++) {
        if (found && n < *size) {
            memset(&found[n], 0, sizeof found[n]);
            sscanf(word, "%u:%llu", &found[n].pid, &found[n].used);
            if (!strchr(word, ':')) found[n].used = ~0ull; /* NVML_VALUE_NOT_AVAILABLE */
        }
    }
    int fits = n <= *size;
    *size = n;
    return n == 0 || (fits && found) ? SUCCESS : INSUFFICIENT_SIZE;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned int *size, process_t *found) {
    return processes(handle, "procs", size, found);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned int *size, process_t *found) {
    return processes(handle, "draws", size, found);
}
