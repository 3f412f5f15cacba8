// The gradient of a convolution's input by Winograd's algorithm, as the adjoint of the convolution's tiles; see
// geometry.h:
//     dL/dd = B [(G g G^T) * (A dL/dY A^T)] B^T
// with the filters transposed, summed where the tiles' inputs overlap, or are copies of one pixel. At stride 1 with a
// border of zeros it is cheaper as a convolution of its own; otherwise that would need tiles beyond the map.
#pragma once

#include "geometry.h"
#include "gradient_tile.h"
#include "matrix_products.h"
#include "transforms.h"

#include <algorithm>

namespace fastvae {

template <int T, int STRIDE, Border BORDER>
struct DataGradient {
    using G = Geometry<T, STRIDE, BORDER>;
    static constexpr int SIDE = G::SIDE, POINTS = G::POINTS;
    using Hand = TilesAtHand<POINTS>;

    G geometry;
    int inputs, outputs;   // channels, multiples of OUTPUTS
    const float* grad;     // [images, height, width, outputs]
    const float* filters;  // G g G^T as [PHASES * inputs / OUTPUTS][POINTS][outputs][OUTPUTS]
    float* out;            // [images, STRIDE height, STRIDE width, inputs]
    int tiles_at_a_time;

    Hand hand() const { return {tiles_at_a_time, outputs}; }
    size_t scratch_size() const { return hand().size(); }

    // Computes images [first, last). Tiles overlap within an image only, and are added in their order.
    void run(int first, int last, float* scratch) const {
        const size_t image = size_t(STRIDE * geometry.height) * (STRIDE * geometry.width) * inputs;
        std::fill(out + first * image, out + last * image, 0.0f);
        const int end = last * geometry.tiles_of_image();
        for (int tile = first * geometry.tiles_of_image(); tile < end; tile += tiles_at_a_time)
            run_tiles(tile, std::min(tiles_at_a_time, end - tile), scratch);
    }

  private:
    void run_tiles(int first, int count, float* scratch) const {
        const Hand hand = this->hand();
        for (int t = 0; t < count; t++)
            transform_gradient(geometry, geometry.corner(first + t), grad, outputs, scratch + size_t(t) * outputs,
                               hand.point_stride());
        for (int channel = 0; channel < G::PHASES * inputs; channel += OUTPUTS) {
            hand.multiply(count, filters + size_t(channel) * POINTS * outputs, scratch);
            for (int t = 0; t < count; t++)
                add_tile(geometry.corner(first + t), channel, scratch + hand.products_at() + t * Hand::PRODUCT_STRIDE);
        }
    }

    void add_tile(typename G::Corner c, int channel, const float* products) const {
        const int phase = channel / inputs;
        for (int half = 0; half < 2; half++) {
            Lanes v[SIDE][SIDE];
            for (int i = 0; i < SIDE; i++)
                for (int j = 0; j < SIDE; j++) v[i][j] = load(products + (i * SIDE + j) * OUTPUTS + half * LANES);
            both_axes<SIDE>(v, [](auto& d) { gather_points<SIDE>(d); });
            for (int i = 0; i < SIDE; i++)
                for (int j = 0; j < SIDE; j++)
                    if (const ptrdiff_t pixel = geometry.input(c, phase, i, j); pixel >= 0) {
                        float* to = out + pixel * inputs + channel % inputs + half * LANES;
                        store(to, load(to) + v[i][j]);
                    }
        }
    }
};

}  // namespace fastvae
