// A network of convolutions on feature maps, run by a pool of threads. It is built layer by layer through the functions
// at the end, which engine.py calls, and knows nothing about the VAE. One run at a time; others wait.

#include "pool.h"
#include "to_image.h"
#include "winograd.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <variant>

namespace fastvae {

// Input pixels: element (image, channel, y, x) is at the offset that the strides give.
struct Input {
    const void* from;
    int64_t strides[4];
    bool bytes;  // uint8 in 0..255, scaled to -1..1; otherwise floats
};

using Layer = std::variant<Direct, Winograd<Conv3x3Tile2>, Winograd<Conv3x3Tile4>, Winograd<Upsampling>,
                           Winograd<Downsampling>, ToImage>;

// A task should take much longer than the microsecond that scheduling it costs, and each thread should get several.
constexpr double SMALLEST_TASK = 4e5;  // multiplications
constexpr double READING = 10;         // multiplications in the time that reading a filter takes
constexpr int TASKS_PER_THREAD = 4;

class Engine {
  public:
    explicit Engine(int threads, int images_at_a_time) : pool_(threads), images_at_a_time_(images_at_a_time) {}

    Arena filters;
    std::deque<Map> maps;
    std::deque<Layer> layers;

    // One execution request: the input is read into map `input_map`, then the layers run. A ToImage layer writes to
    // `images`; the maps `results`, of one pixel each, are copied to `vectors`.
    struct Run {
        const int* layers;
        int layer_count, input_map;
        Input input;
        float* images;
        const int* results;
        float* const* vectors;
        int result_count;
        double* seconds;  // null, or where the times of reading the input and of each layer are added
    };

    void run(const Run& request, int batch) {
        std::lock_guard<std::mutex> lock(mutex_);
        for (int first = 0; first < batch; first += images_at_a_time_) {
            const int count = std::min(images_at_a_time_, batch - first);
            reserve(count);
            std::vector<std::unique_ptr<Stage>> stages;
            const int rows = count * maps[request.input_map].height;
            add_ranges(stages, rows, 20.0 * maps[request.input_map].row(),
                       [=, this](int from, int to, int) { read(request, first, from, to); });
            for (int i = 0; i < request.layer_count; i++)
                std::visit([&](auto& layer) { add_layer(stages, layer, request, first, count); },
                           layers[request.layers[i]]);
            if (request.result_count)
                add(stages, 1, [=, this](int, int) {
                    for (int r = 0; r < request.result_count; r++) {
                        Map& map = maps[request.results[r]];
                        for (int b = 0; b < count; b++)
                            for (int c = 0; c < map.channels; c++)
                                request.vectors[r][size_t(first + b) * map.channels + c] = to_float(map.at(b, 0, 0)[c]);
                    }
                });
            auto start = std::chrono::steady_clock::now();
            pool_.run(stages);
            for (int i = 0; request.seconds && i <= request.layer_count; start = stages[i++]->ended)
                request.seconds[i] += std::chrono::duration<double>(stages[i]->ended - start).count();
        }
    }

  private:
    using Stages = std::vector<std::unique_ptr<Stage>>;

    void add(Stages& stages, int tasks, std::function<void(int, int)> run) const {
        stages.push_back(std::make_unique<Stage>(tasks, pool_.threads(), std::move(run)));
    }

    // How many equal pieces of work make a task: enough to be worth scheduling, few enough to keep all threads busy.
    int pieces_per_task(int pieces, double multiplications_each) const {
        const int wanted = TASKS_PER_THREAD * pool_.threads();
        const int each = std::max((pieces + wanted - 1) / wanted, int(std::ceil(SMALLEST_TASK / multiplications_each)));
        return std::min(each, pieces);
    }

    // Adds a stage that calls run(first, last, thread) for ranges that cover all pieces.
    void add_ranges(Stages& stages, int pieces, double multiplications_each, std::function<void(int, int, int)> run) {
        const int each = pieces_per_task(pieces, multiplications_each);
        add(stages, (pieces + each - 1) / each, [=](int task, int thread) {
            run(task * each, std::min(pieces, (task + 1) * each), thread);
        });
    }

    // A piece is some pixels of one block of outputs. If the maps are larger than the filters, a thread computes all
    // blocks of its pixels; otherwise all pixels of its blocks, so that each filter is read into one cache only.
    void add_layer(Stages& stages, Direct& layer, const Run&, int, int count) {
        const int pixels = count * layer.height * layer.width, tiles = (pixels + PIXELS - 1) / PIXELS;
        const int parts = layer.blocks() * int(layer.filters.size()), wanted = TASKS_PER_THREAD * pool_.threads();
        const double filters = double(layer.block_size()) * parts;
        const bool by_pixels = filters < double(count) * (layer.in->image() + layer.out->image());
        const int chunks = std::min(tiles, by_pixels ? wanted : (wanted + parts - 1) / parts);
        const int each = (tiles + chunks - 1) / chunks * PIXELS;
        const double work = filters / parts * (std::min(each, pixels) + READING);
        add_ranges(stages, parts * chunks, work, [=, &layer](int from, int to, int) {
            for (int piece = from; piece < to; piece++) {
                const int part = by_pixels ? piece % parts : piece / chunks;
                const int first = (by_pixels ? piece / parts : piece % chunks) * each;
                layer.run_block(layer.filters[part / layer.blocks()], part % layer.blocks(), first,
                                std::min(pixels, first + each));
            }
        });
    }

    // A task is some of the tiles, the same number for each thread, and, if there are too few tiles for all threads,
    // some of the outputs. Then each thread transforms the inputs itself, which is faster than fetching them from
    // another core.
    template <class Form>
    void add_layer(Stages& stages, Winograd<Form>& layer, const Run&, int, int count) {
        const int tiles = count * layer.tiles_per_image(), limit = Winograd<Form>::TILES, threads = pool_.threads();
        const bool by_tiles = tiles >= threads * 2 * PIXELS;
        const int least = (tiles + limit - 1) / limit;
        const int groups = by_tiles ? (least + threads - 1) / threads * threads : least;
        const int parts = by_tiles ? 1 : std::clamp((threads + groups - 1) / groups, 1, layer.blocks());
        const int each = (tiles + groups - 1) / groups;
        add(stages, groups * parts, [=, this, &layer](int task, int thread) {
            const int first = task / parts * each, here = std::min(tiles - first, each), part = task % parts;
            const Scratch& scratch = scratch_[thread];
            layer.transform(first, here, scratch.transformed);
            for (int block = part * layer.blocks() / parts; block < (part + 1) * layer.blocks() / parts; block++)
                layer.finish(first, here, block, scratch.transformed, scratch.products);
        });
    }

    void add_layer(Stages& stages, ToImage& layer, const Run& request, int first, int count) {
        float* images = request.images + size_t(first) * layer.outputs() * layer.in->height * layer.in->width;
        const int windows = count * layer.windows(), tiles = (windows + PIXELS - 1) / PIXELS;
        const double multiplications = 4.0 * layer.in->channels * layer.width() * layer.blocks() * PIXELS;
        add_ranges(stages, tiles, multiplications, [=, &layer](int from, int to, int) {
            layer.run_windows(from * PIXELS, std::min(windows, to * PIXELS), images);
        });
    }

    // Reads rows [from, to) of the input, counted through the images of this piece of the batch.
    void read(const Run& request, int first, int from, int to) {
        Map& map = maps[request.input_map];
        const Input& in = request.input;
        for (int row = from; row < to; row++) {
            const int image = row / map.height, y = row % map.height;
            const int64_t start = (first + image) * in.strides[0] + y * in.strides[2];
            Element* pixel = map.at(image, y, 0);
            for (int c = 0; c < map.channels; c++) {
                const int64_t at = start + c * in.strides[1];
                for (int x = 0; x < map.width; x++)
                    pixel[x * map.channels + c] =
                        to_element(in.bytes ? static_cast<const uint8_t*>(in.from)[at + x * in.strides[3]] / 127.5f - 1.0f
                                            : static_cast<const float*>(in.from)[at + x * in.strides[3]]);
            }
        }
    }

    // Allocates maps for this many images, and each thread's scratch space. Zero borders are set here only: nothing ever
    // writes to them.
    void reserve(int images) {
        if (std::any_of(maps.begin(), maps.end(), [&](const Map& map) { return map.images < images; })) {
            for (const Map& map : maps) images = std::max(images, map.images);
            for (Map& map : maps) map.images = 0;  // should there be no memory
            map_memory_ = Arena();
            // The last pair of elements of a run may end after the map.
            for (Map& map : maps)
                map.values = map_memory_.zeros<Element>(images * map.image() + PAIR), map.images = images;
        }
        size_t inputs = 0, sums = 0;
        for (const Layer& layer : layers)
            std::visit([&](const auto& l) { inputs = std::max(inputs, inputs_size(l)), sums = std::max(sums, sums_size(l)); },
                       layer);
        if (scratch_.empty() || scratch_[0].inputs < inputs || scratch_[0].sums < sums) {
            scratch_.clear();
            scratch_memory_ = Arena();
            std::vector<Scratch> scratch;
            for (int t = 0; t < pool_.threads(); t++)
                scratch.push_back({scratch_memory_.zeros<Element>(inputs), scratch_memory_.zeros<float>(sums), inputs, sums});
            scratch_ = std::move(scratch);
        }
    }

    template <class Form>
    static size_t inputs_size(const Winograd<Form>& layer) { return layer.inputs_size(); }
    template <class Other>
    static size_t inputs_size(const Other&) { return 0; }
    template <class Form>
    static size_t sums_size(const Winograd<Form>& layer) { return layer.sums_size(); }
    template <class Other>
    static size_t sums_size(const Other&) { return 0; }

    Pool pool_;
    std::mutex mutex_;
    const int images_at_a_time_;
    struct Scratch {
        Element* transformed;
        float* products;
        size_t inputs, sums;  // sizes
    };
    Arena map_memory_, scratch_memory_;
    std::vector<Scratch> scratch_;  // of each thread
};

}  // namespace fastvae

using namespace fastvae;

namespace {

// What `body` returns, or -1 if memory or threads were refused: an exception must not leave C.
template <class Body>
int guarded(Body&& body) noexcept {
    try {
        return body();
    } catch (...) {
        return -1;
    }
}

}  // namespace

extern "C" {

int fastvae_lanes() { return LANES; }

// Null if the threads cannot be started.
Engine* fastvae_new(int threads, int images_at_a_time) {
    Engine* engine = nullptr;
    guarded([&] { return engine = new Engine(threads, images_at_a_time), 0; });
    return engine;
}

void fastvae_delete(Engine* engine) { delete engine; }

// Each of these returns the index of the map or layer that it adds, or -1 if there is no memory for it.

int fastvae_map(Engine* e, int height, int width, int channels, int replicate) {
    return guarded([&] {
        e->maps.push_back(Map{height, width, channels, replicate != 0});
        return int(e->maps.size()) - 1;
    });
}

// height x width positions, `step` apart in the output. Filters are added by fastvae_filters.
int fastvae_direct(Engine* e, int in, int out, int residual, int rows, int columns, int stride, int height, int width,
                   int step, int outputs, int activation, float slope) {
    return guarded([&] {
        e->layers.push_back(Direct{&e->maps[in], &e->maps[out], residual < 0 ? nullptr : &e->maps[residual], rows,
                                   columns, stride, height, width, step, outputs, Activation(activation), slope, {}});
        return int(e->layers.size()) - 1;
    });
}

// weights [outputs][rows][columns][in channels]; returns 0 or -1
int fastvae_filters(Engine* e, int layer, const float* weights, const float* bias, int in_y, int in_x, int out_y,
                    int out_x) {
    return guarded([&] {
        std::get<Direct>(e->layers[layer]).add(e->filters, weights, bias, in_y, in_x, out_y, out_x);
        return 0;
    });
}

// Form 0 to 3, as in engine.py; filters [places][outputs][phases][in channels]
int fastvae_winograd(Engine* e, int in, int out, int residual, int form, const float* filters, const float* bias,
                     int activation, float slope) {
    const auto add = [&](auto layer) {
        layer.in = &e->maps[in], layer.out = &e->maps[out], layer.residual = residual < 0 ? nullptr : &e->maps[residual];
        layer.activation = Activation(activation), layer.slope = slope;
        layer.set(e->filters, filters, bias);
        e->layers.push_back(std::move(layer));
    };
    return guarded([&] {
        switch (form) {
            case 0: add(Winograd<Conv3x3Tile2>{}); break;
            case 1: add(Winograd<Conv3x3Tile4>{}); break;
            case 2: add(Winograd<Upsampling>{}); break;
            default: add(Winograd<Downsampling>{});
        }
        return int(e->layers.size()) - 1;
    });
}

// weights [2][2][colours][2][2][in channels]
int fastvae_to_image(Engine* e, int in, int colours, const float* weights, const float* bias) {
    return guarded([&] {
        ToImage layer{&e->maps[in], colours, nullptr, nullptr};
        layer.set(e->filters, weights, bias);
        e->layers.push_back(std::move(layer));
        return int(e->layers.size()) - 1;
    });
}

// Returns 0 or -1.
int fastvae_run(Engine* e, const int* layers, int layer_count, int input_map, const void* input, const int64_t* strides,
                int bytes, int batch, float* images, const int* results, float* const* vectors, int result_count,
                double* seconds) {
    return guarded([&] {
        Input in{input, {strides[0], strides[1], strides[2], strides[3]}, bytes != 0};
        e->run({layers, layer_count, input_map, in, images, results, vectors, result_count, seconds}, batch);
        return 0;
    });
}
}
