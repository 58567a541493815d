// Images (N, C, D, H, W) read at places between their pixels, as sampling.py describes.
// DIMS: axes of space, 2 or 3 (without D). NEIGHBOURS along each: 1 nearest, 2 linear, 4 cubic.

enum Padding { ZEROS, BORDER, REFLECTION };
constexpr int BEFORE = (NEIGHBOURS - 1) / 2;  // neighbours before the pixel a place is at or behind
constexpr int COUNT = (DIMS == 3 ? NEIGHBOURS : 1) * NEIGHBOURS * NEIGHBOURS;

struct Along {  // the neighbours of a place along one axis of space
    int pixel[NEIGHBOURS];  // -1 where zeros lie
    acc_t weight[NEIGHBOURS], slope[NEIGHBOURS];
};

struct Images {
    int size[DIMS];
    long long pixels;  // of a channel
    int padding;
    bool align_corners;
};

// A place mirrored into the image as often as needed; `slope` changes sign where that turns it.
__device__ acc_t reflected(acc_t place, acc_t& slope, int size, bool align_corners) {
    acc_t edge = align_corners ? acc_t(0) : acc_t(-0.5), span = size - 1 - 2 * edge;
    if (span == 0) {
        slope = 0;
        return 0;
    }
    bool before = place < edge;
    acc_t distance = fmod(before ? edge - place : place - edge, 2 * span);
    bool beyond = distance > span;
    if (beyond != before) slope = -slope;
    return (beyond ? 2 * span - distance : distance) + edge;
}

// The pixel that neighbour i is, or repeats; -1 where zeros lie.
__device__ int pixel_of(int i, int size, int padding, bool align_corners) {
    if (0 <= i && i < size) return i;
    if (NEIGHBOURS < 4 || padding == ZEROS) return -1;
    if (padding == BORDER) return i < 0 ? 0 : size - 1;
    if (align_corners && size == 1) return 0;
    int period = align_corners ? 2 * size - 2 : 2 * size;
    i = (i % period + period) % period;
    return i < size ? i : (align_corners ? period : period - 1) - i;
}

// Keys' kernel up to distance 1 and beyond, and its derivatives.
constexpr acc_t KEYS = -0.75;
__device__ acc_t near(acc_t d) { return ((KEYS + 2) * d - (KEYS + 3)) * d * d + 1; }
__device__ acc_t far(acc_t d) { return KEYS * (((d - 5) * d + 8) * d - 4); }
__device__ acc_t near_slope(acc_t d) { return (3 * (KEYS + 2) * d - 2 * (KEYS + 3)) * d; }
__device__ acc_t far_slope(acc_t d) { return KEYS * ((3 * d - 10) * d + 8); }

__device__ Along along(acc_t coordinate, int size, int padding, bool align_corners) {
    acc_t slope = align_corners ? (size - 1) / acc_t(2) : size / acc_t(2);
    acc_t middle = (size - 1) / acc_t(2), away = 2 * size;
    acc_t place = coordinate * slope;
    place += away;  // so that what is meant to be a pixel is rounded to it
    place -= away - middle;
    if (padding == REFLECTION) place = reflected(place, slope, size, align_corners);
    if (padding != ZEROS && NEIGHBOURS < 4) {
        if (!(place > 0 && place < size - 1)) slope = 0;
        place = fmin(fmax(place, acc_t(0)), acc_t(size - 1));  // NaN becomes 0
    }
    acc_t least = BEFORE - NEIGHBOURS, most = size + BEFORE;
    place = place < least ? least : place > most ? most : place;  // NaN stays
    acc_t below = NEIGHBOURS == 1 ? rint(place) : floor(place);
    int first = int(fmax(below, least)) - BEFORE;  // NaN is no index

    Along axis;
    for (int k = 0; k < NEIGHBOURS; ++k)
        axis.pixel[k] = pixel_of(first + k, size, padding, align_corners);
#if NEIGHBOURS == 1
    axis.weight[0] = 1;
    axis.slope[0] = 0;
#elif NEIGHBOURS == 2
    acc_t a = place - below;
    axis.weight[0] = 1 - a, axis.weight[1] = a;
    axis.slope[0] = -slope, axis.slope[1] = slope;
#else
    acc_t a = place - below;
    axis.weight[0] = far(1 + a), axis.slope[0] = far_slope(1 + a) * slope;
    axis.weight[1] = near(a), axis.slope[1] = near_slope(a) * slope;
    axis.weight[2] = near(1 - a), axis.slope[2] = -near_slope(1 - a) * slope;
    axis.weight[3] = far(2 - a), axis.slope[3] = -far_slope(2 - a) * slope;
#endif
    return axis;
}

struct Place {
    Along axis[DIMS];
    int pixel[COUNT];  // of a channel; -1 where zeros lie
    acc_t weight[COUNT];

    // grid holds (x, y) or (x, y, z) of this place: the last axis of space first.
    __device__ Place(const T* grid, const Images& images) {
        #pragma unroll
        for (int d = 0; d < DIMS; ++d)
            axis[d] = along(acc_t(grid[DIMS - 1 - d]), images.size[d], images.padding,
                            images.align_corners);
        #pragma unroll  // then all of a place lies in registers
        for (int k = 0; k < COUNT; ++k) {
            pixel[k] = 0;
            #pragma unroll
            for (int d = 0; d < DIMS; ++d) {
                int i = axis[d].pixel[along_axis(k, d)];
                pixel[k] = pixel[k] < 0 || i < 0 ? -1 : pixel[k] * images.size[d] + i;
            }
            weight[k] = product(k, -1);
        }
    }

    // Which neighbour along axis d neighbour k is.
    __device__ static constexpr int along_axis(int k, int d) {
        int behind = DIMS - 1 - d;
        k /= behind == 0 ? 1 : behind == 1 ? NEIGHBOURS : NEIGHBOURS * NEIGHBOURS;
        return k % NEIGHBOURS;
    }

    // What neighbour k weighs; or the derivative of that by the place along the axis `sloping`.
    __device__ acc_t product(int k, int sloping) const {
        acc_t factors = 1;
        #pragma unroll
        for (int d = 0; d < DIMS; ++d) {
            int i = along_axis(k, d);
            factors *= d == sloping ? axis[d].slope[i] : axis[d].weight[i];
        }
        return factors;
    }
};

#define IMAGES_ARE                                               \
    long long C, long long D, long long H, long long W,          \
    long long padding, long long align_corners
#if DIMS == 3
#define IMAGES Images{{(int)D, (int)H, (int)W}, D * H * W, (int)padding, align_corners != 0}
#else
#define IMAGES Images{{(int)H, (int)W}, H * W, (int)padding, align_corners != 0}
#endif

// One thread for each place and `share` of the channels. y (N, C, places)
extern "C" __global__ void read_places(const T* x, const T* grid, T* y, long long n,
                                       long long places, long long share, IMAGES_ARE) {
    Images images = IMAGES;
    long long shares = (C + share - 1) / share;
    FOR_EACH(i, n) {
        long long p = i % places, part = i / places % shares, image = i / places / shares;
        Place place(grid + (image * places + p) * DIMS, images);
        for (long long c = part * share; c < min((part + 1) * share, C); ++c) {
            const T* channel = x + (image * C + c) * images.pixels;
            acc_t sum = 0;
            for (int k = 0; k < COUNT; ++k) {
                int pixel = place.pixel[k];
                sum += place.weight[k] * (pixel < 0 ? acc_t(0) : acc_t(channel[pixel]));
            }
            y[(image * C + c) * places + p] = T(sum);
        }
    }
}

// Places name their pixels, not pixels their places: so this adds where other threads add too.
extern "C" __global__ void read_places_backward_input(const T* dy, const T* grid, acc_t* dx,
                                                      long long n, long long places,
                                                      long long share, IMAGES_ARE) {
    Images images = IMAGES;
    long long shares = (C + share - 1) / share;
    FOR_EACH(i, n) {
        long long p = i % places, part = i / places % shares, image = i / places / shares;
        Place place(grid + (image * places + p) * DIMS, images);
        for (long long c = part * share; c < min((part + 1) * share, C); ++c) {
            acc_t* channel = dx + (image * C + c) * images.pixels;
            acc_t gradient = dy[(image * C + c) * places + p];
            for (int k = 0; k < COUNT; ++k)
                if (place.pixel[k] >= 0)
                    atomic_add(channel + place.pixel[k], place.weight[k] * gradient);
        }
    }
}

// One thread for each place, which adds up over the channels.
extern "C" __global__ void read_places_backward_grid(const T* x, const T* grid, const T* dy,
                                                     T* dgrid, long long n, long long places,
                                                     IMAGES_ARE) {
    Images images = IMAGES;
    FOR_EACH(i, n) {
        long long p = i % places, image = i / places;
        Place place(grid + i * DIMS, images);
        acc_t dweight[COUNT] = {};
        for (long long c = 0; c < C; ++c) {
            const T* channel = x + (image * C + c) * images.pixels;
            acc_t gradient = dy[(image * C + c) * places + p];
            for (int k = 0; k < COUNT; ++k)
                if (place.pixel[k] >= 0) dweight[k] += acc_t(channel[place.pixel[k]]) * gradient;
        }
        for (int d = 0; d < DIMS; ++d) {
            acc_t sum = 0;
            for (int k = 0; k < COUNT; ++k) sum += dweight[k] * place.product(k, d);
            dgrid[i * DIMS + DIMS - 1 - d] = T(sum);
        }
    }
}
