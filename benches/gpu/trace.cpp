// Records what a card does and what is asked of its driver, by CUPTI; see trace.py.
//
//   g++ -O2 -shared -fPIC -I$CUPTI/include -o libtrace.so benches/gpu/trace.cpp -L$CUPTI/lib -l:libcupti.so.13
//   TRACE_OUT=trace.bin CUDA_INJECTION64_PATH=$PWD/libtrace.so target/release/pipe run FILE --device cuda:0
//
// CUPTI is the folder of the toolkit, or of `nvidia-cuda-cupti` from PyPI (with `nvidia-cuda-runtime` and
// `nvidia-cuda-crt` for the headers). TRACE_DRIVER=1 records the driver's calls, too, which slows them down.
#include <cupti.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

struct Record {
    uint64_t start, end;
    uint32_t kind, lane, name;  // lane: a stream, or a thread
};
enum Kind : uint32_t { KERNEL, COPY, FILL, CALL };

static std::mutex mutex;
static std::vector<Record> records;
static std::vector<std::string> names;
static std::unordered_map<std::string, uint32_t> known;

static uint32_t number(const char *text) {
    auto [place, is_new] = known.try_emplace(text ? text : "?", names.size());
    if (is_new) names.push_back(place->first);
    return place->second;
}

static void CUPTIAPI give(uint8_t **buffer, size_t *size, size_t *most) {
    *size = 8 << 20;
    *buffer = static_cast<uint8_t *>(aligned_alloc(8, *size));
    *most = 0;
}

static void CUPTIAPI take(CUcontext, uint32_t, uint8_t *buffer, size_t, size_t valid) {
    std::lock_guard<std::mutex> guard(mutex);
    CUpti_Activity *any = nullptr;
    while (valid && cuptiActivityGetNextRecord(buffer, valid, &any) == CUPTI_SUCCESS) {
        if (any->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
            auto *it = reinterpret_cast<CUpti_ActivityKernel10 *>(any);
            records.push_back({it->start, it->end, KERNEL, it->streamId, number(it->name)});
        } else if (any->kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
            auto *it = reinterpret_cast<CUpti_ActivityMemcpy6 *>(any);
            std::string name = "copy of kind " + std::to_string(it->copyKind);
            records.push_back({it->start, it->end, COPY, it->streamId, number(name.c_str())});
        } else if (any->kind == CUPTI_ACTIVITY_KIND_MEMSET) {
            auto *it = reinterpret_cast<CUpti_ActivityMemset4 *>(any);
            records.push_back({it->start, it->end, FILL, it->streamId, number("fill")});
        } else if (any->kind == CUPTI_ACTIVITY_KIND_DRIVER) {
            auto *it = reinterpret_cast<CUpti_ActivityAPI *>(any);
            const char *name = nullptr;
            cuptiGetCallbackName(CUPTI_CB_DOMAIN_DRIVER_API, it->cbid, &name);
            records.push_back({it->start, it->end, CALL, it->threadId, number(name)});
        }
    }
    free(buffer);
}

static void finish() {
    cuptiActivityFlushAll(1);
    const char *path = getenv("TRACE_OUT");
    FILE *file = fopen(path ? path : "trace.bin", "wb");
    if (!file) return perror("trace");
    std::lock_guard<std::mutex> guard(mutex);
    uint64_t counts[2] = {names.size(), records.size()};
    fwrite(counts, sizeof counts, 1, file);
    for (auto &name : names) {
        uint32_t length = name.size();
        fwrite(&length, sizeof length, 1, file);
        fwrite(name.data(), 1, length, file);
    }
    for (auto &it : records) {
        fwrite(&it.start, sizeof it.start, 2, file);
        fwrite(&it.kind, sizeof it.kind, 3, file);
    }
    fclose(file);
}

extern "C" int InitializeInjection() {
    cuptiActivityRegisterCallbacks(give, take);
    CUptiResult begun = cuptiActivityEnable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL);
    if (begun != CUPTI_SUCCESS) fprintf(stderr, "trace: CUPTI gives error %d\n", begun);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMCPY);
    cuptiActivityEnable(CUPTI_ACTIVITY_KIND_MEMSET);
    if (getenv("TRACE_DRIVER")) cuptiActivityEnable(CUPTI_ACTIVITY_KIND_DRIVER);
    atexit(finish);
    return 1;
}
