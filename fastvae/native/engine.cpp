// A network of convolutions on feature maps, run by a pool of threads. Built layer by layer through the functions at the
// end, which fastvae/native/engine.py calls; it knows nothing of the VAE. One run at a time: others wait.

#include "convolution.h"
#include "pool.h"

#include <deque>
#include <variant>

namespace fastvae {

// Pixels that enter: element (image, channel, y, x) is at the strides' offset.
struct Input {
    const void* from;
    int64_t strides[4];
    bool bytes;  // 0..255, which become -1..1; else floats as they are
};

// The last layer: nearest x2 upsampling, replication padding, 3x3 convolution, tanh, as one 2x2 convolution of the
// padded low-resolution map. A window gives four pixels, which are one row and one column further left for odd ones.
struct ToImage {
    Map* in;
    int colours;
    std::vector<float> packed, bias;  // outputs: [2 rows][2 columns][colours]

    int outputs() const { return 4 * colours; }
    int blocks() const { return (outputs() + OUTPUTS - 1) / OUTPUTS; }

    void set(const float* weights, const float* biases) {
        Direct as_direct{in, nullptr, nullptr, 2, 2, 1, 0, 0, 1, outputs(), NONE, 0, {}};
        as_direct.add(weights, biases, 0, 0, 0, 0);
        packed = std::move(as_direct.filters[0].packed), bias = std::move(as_direct.filters[0].bias);
    }

    // Windows [first, last), counted through rows and images, into images [B, colours, 2 height, 2 width].
    void run_windows(int first, int last, float* images) const {
        const int across = in->width + 1, windows = (in->height + 1) * across, run = 2 * in->channels;
        const int height = 2 * in->height, width = 2 * in->width;
        for (int block = 0; block < blocks(); block++)
            for (int window = first; window < last; window += PIXELS)
                with_count(std::min(PIXELS, last - window), [&](auto m_constant) {
                    constexpr int M = decltype(m_constant)::value;
                    const float* x[M];
                    Lanes acc[M][2];
                    for (int m = 0; m < M; m++) {
                        const int w = window + m, in_image = w % windows;
                        x[m] = in->at(w / windows, in_image / across - 1, in_image % across - 1);
                        for (int half = 0; half < 2; half++) acc[m][half] = load(&bias[block * OUTPUTS + half * LANES]);
                    }
                    accumulate<M>(x, in->row(), 2, run, packed.data() + size_t(block) * 2 * run * OUTPUTS, acc);
                    for (int m = 0; m < M; m++) {
                        float values[OUTPUTS];
                        for (int half = 0; half < 2; half++)
                            store(values + half * LANES, hyperbolic_tangent(acc[m][half]));
                        const int w = window + m, image = w / windows, in_image = w % windows;
                        for (int n = block * OUTPUTS; n < std::min(outputs(), (block + 1) * OUTPUTS); n++) {
                            const int y = in_image / across * 2 - n / colours / 2;
                            const int column = in_image % across * 2 - n / colours % 2;
                            if (y < 0 || y >= height || column < 0 || column >= width) continue;
                            images[((size_t(image) * colours + n % colours) * height + y) * width + column] =
                                values[n - block * OUTPUTS];
                        }
                    }
                });
    }
};

using Layer = std::variant<Direct, Winograd, ToImage>;

// A task should last long against the microsecond that handing it out takes, and be one of several for each thread.
constexpr double SMALLEST_TASK = 4e5;  // multiplications
constexpr int TASKS_PER_THREAD = 4;

class Engine {
  public:
    explicit Engine(int threads, int images_at_a_time) : pool_(threads), images_at_a_time_(images_at_a_time) {}

    std::deque<Map> maps;
    std::deque<Layer> layers;

    // What is to be run, between two maps; either end may be outside: an input that is not null is read into map
    // `input_map`, results go to `images` from a ToImage layer, or from `results` (single pixels) to `vectors`.
    struct Run {
        const int* layers;
        int layer_count, input_map;
        Input input;
        float* images;
        const int* results;
        float* const* vectors;
        int result_count;
    };

    void run(const Run& what, int batch) {
        std::lock_guard<std::mutex> lock(mutex_);
        for (int first = 0; first < batch; first += images_at_a_time_) {
            const int count = std::min(images_at_a_time_, batch - first);
            reserve(count);
            std::vector<std::unique_ptr<Stage>> stages;
            add(stages, count, [=, this](int task, int) { read(what, first, task); });
            for (int i = 0; i < what.layer_count; i++) add_layer(stages, layers[what.layers[i]], what, first, count);
            if (what.result_count)
                add(stages, 1, [=, this](int, int) {
                    for (int r = 0; r < what.result_count; r++) {
                        Map& map = maps[what.results[r]];
                        for (int b = 0; b < count; b++)
                            std::memcpy(what.vectors[r] + size_t(first + b) * map.channels, map.at(b, 0, 0),
                                        sizeof(float) * map.channels);
                    }
                });
            pool_.run(stages);
        }
    }

  private:
    using Stages = std::vector<std::unique_ptr<Stage>>;

    static void add(Stages& stages, int tasks, std::function<void(int, int)> run) {
        stages.push_back(std::make_unique<Stage>(tasks, std::move(run)));
    }

    // Items a task: enough work for one, as many tasks as keep every thread busy, whole tiles.
    int share(int items, double multiplications_each, int tile, int parts) const {
        const int wanted = std::max(1, (TASKS_PER_THREAD * pool_.threads() + parts - 1) / parts);
        int each = std::max((items + wanted - 1) / wanted, int(SMALLEST_TASK / multiplications_each));
        each = (each + tile - 1) / tile * tile;
        return std::min(each, (items + tile - 1) / tile * tile);
    }

    void add_layer(Stages& stages, Layer& layer, const Run& what, int first, int count) {
        if (auto* direct = std::get_if<Direct>(&layer)) {
            const int pixels = count * direct->height * direct->width;
            const int parts = direct->blocks() * int(direct->filters.size());
            const int each = share(pixels, double(direct->rows) * direct->run() * OUTPUTS, PIXELS, parts);
            const int pieces = (pixels + each - 1) / each;
            add(stages, parts * pieces, [=](int task, int) {
                const int piece = task % pieces, part = task / pieces;
                const Filters& filters = direct->filters[part / direct->blocks()];
                direct->run_block(filters, part % direct->blocks(), piece * each, std::min(pixels, (piece + 1) * each));
            });
        } else if (auto* winograd = std::get_if<Winograd>(&layer)) {
            const int tiles = count * winograd->tiles_per_image();
            const int pieces = (tiles + Winograd::TILES - 1) / Winograd::TILES;
            const int each = (tiles + pieces - 1) / pieces;
            // Few tiles: the output channels are shared out too, at the price of transforming the input again.
            const int parts = std::clamp((2 * pool_.threads() + pieces - 1) / pieces, 1, winograd->blocks());
            add(stages, pieces * parts, [=, this](int task, int thread) {
                const int piece = task / parts, part = task % parts, blocks = winograd->blocks();
                winograd->run_tiles(piece * each, std::min(tiles, (piece + 1) * each), part * blocks / parts,
                                    (part + 1) * blocks / parts, scratch_[thread].data());
            });
        } else {
            auto* last = std::get_if<ToImage>(&layer);
            const int windows = count * (last->in->height + 1) * (last->in->width + 1);
            const int each = share(windows, 4.0 * last->in->channels * OUTPUTS * last->blocks(), PIXELS, 1);
            float* images = what.images + size_t(first) * last->outputs() * last->in->height * last->in->width;
            add(stages, (windows + each - 1) / each, [=](int task, int) {
                last->run_windows(task * each, std::min(windows, (task + 1) * each), images);
            });
        }
    }

    void read(const Run& what, int first, int image) {
        Map& map = maps[what.input_map];
        const Input& in = what.input;
        for (int y = 0; y < map.height; y++)
            for (int x = 0; x < map.width; x++) {
                float* to = map.at(image, y, x);
                const int64_t from = (first + image) * in.strides[0] + y * in.strides[2] + x * in.strides[3];
                for (int c = 0; c < map.channels; c++) {
                    const int64_t at = from + c * in.strides[1];
                    to[c] = in.bytes ? static_cast<const uint8_t*>(in.from)[at] / 127.5f - 1.0f
                                     : static_cast<const float*>(in.from)[at];
                }
            }
    }

    // Room for so many images; borders are zeroed once, as nobody writes into those that are not to repeat pixels.
    void reserve(int images) {
        if (images > reserved_) {
            for (Map& map : maps) map.values.assign(images * map.image(), 0.0f);
            reserved_ = images;
        }
        size_t needed = 0;
        for (Layer& layer : layers)
            if (auto* winograd = std::get_if<Winograd>(&layer)) needed = std::max(needed, winograd->scratch());
        scratch_.resize(pool_.threads());
        for (auto& scratch : scratch_) scratch.resize(needed);
    }

    Pool pool_;
    std::mutex mutex_;
    const int images_at_a_time_;
    int reserved_ = 0;
    std::vector<std::vector<float>> scratch_;
};

}  // namespace fastvae

using namespace fastvae;

extern "C" {

int fastvae_lanes() { return LANES; }

Engine* fastvae_new(int threads, int images_at_a_time) { return new Engine(threads, images_at_a_time); }

void fastvae_delete(Engine* engine) { delete engine; }

// Each of these returns the index of what it added.

int fastvae_map(Engine* e, int height, int width, int channels, int replicate) {
    e->maps.push_back(Map{height, width, channels, replicate != 0, {}});
    return int(e->maps.size()) - 1;
}

// Positions height x width, of which neighbours are `step` apart in the output. Filters follow.
int fastvae_direct(Engine* e, int in, int out, int residual, int rows, int columns, int stride, int height, int width,
                   int step, int outputs, int activation, float slope) {
    e->layers.push_back(Direct{&e->maps[in], &e->maps[out], residual < 0 ? nullptr : &e->maps[residual], rows, columns,
                               stride, height, width, step, outputs, Activation(activation), slope, {}});
    return int(e->layers.size()) - 1;
}

// weights [outputs][rows][columns][in channels]
void fastvae_filters(Engine* e, int layer, const float* weights, const float* bias, int in_y, int in_x, int out_y,
                     int out_x) {
    std::get<Direct>(e->layers[layer]).add(weights, bias, in_y, in_x, out_y, out_x);
}

// filters [16][outputs][in channels]
int fastvae_winograd(Engine* e, int in, int out, int residual, const float* filters, const float* bias, int activation,
                     float slope) {
    Winograd layer{&e->maps[in], &e->maps[out], residual < 0 ? nullptr : &e->maps[residual], Activation(activation),
                   slope, {}, {}};
    layer.set(filters, bias);
    e->layers.push_back(std::move(layer));
    return int(e->layers.size()) - 1;
}

// weights [2][2][colours][2][2][in channels]
int fastvae_to_image(Engine* e, int in, int colours, const float* weights, const float* bias) {
    ToImage layer{&e->maps[in], colours, {}, {}};
    layer.set(weights, bias);
    e->layers.push_back(std::move(layer));
    return int(e->layers.size()) - 1;
}

void fastvae_run(Engine* e, const int* layers, int layer_count, int input_map, const void* input,
                 const int64_t* strides, int bytes, int batch, float* images, const int* results, float* const* vectors,
                 int result_count) {
    Input in{input, {strides[0], strides[1], strides[2], strides[3]}, bytes != 0};
    e->run({layers, layer_count, input_map, in, images, results, vectors, result_count}, batch);
}
}
