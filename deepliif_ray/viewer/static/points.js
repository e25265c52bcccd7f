// Cells as points, drawn by WebGL: cut-offs are uniforms, so moving one sends nothing anywhere.

import { callOf } from "./calls.js";

const VERTEX = `#version 300 es
precision highp float;
precision highp int;
in uint x; in uint y; in uint area; in uint od; in uint dab; in uint marker; in uint flags;
uniform vec2 origin;        // of the tile, level-0 px from the middle of the view
uniform float part;         // positions are in parts of a level-0 px
uniform mat2 turn;          // level-0 px to clip space
uniform vec2 sizes;         // px of the screen per level-0 px, least diameter
uniform float below, above, markerFrom, odLow, odHigh;
uniform vec3 steps;
uniform bool byStrength;
uniform vec3 colours[4];
uniform vec3 positiveColour, negativeColour;
out vec3 colour;
void main() {
  uint said = (flags >> 1u) & 3u;
  float size = float(area);
  bool counts = said != 3u && (said != 0u || (size > below && size < above));
  int strength = int(float(dab) >= steps.x) + int(float(dab) >= steps.y) + int(float(dab) >= steps.z);
  float density = float(od);
  bool positive = density >= odLow && density <= odHigh &&
    ((flags & 1u) != 0u || ((flags & 8u) != 0u && float(marker) > markerFrom));
  if (said == 1u) { positive = true; strength = max(strength, 1); }
  if (said == 2u) { positive = false; strength = 0; }
  colour = byStrength ? colours[strength] : (positive ? positiveColour : negativeColour);
  gl_Position = counts ? vec4(turn * (origin + vec2(float(x), float(y)) / part), 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
  gl_PointSize = max(sizes.y, 0.8 * sqrt(size) * sizes.x);
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec3 colour;
out vec4 shown;
void main() {
  float away = length(gl_PointCoord - 0.5);
  if (away > 0.5) discard;
  shown = vec4(colour, 1.0) * 0.7;
}`;
const COLUMNS = ["x", "y", "area", "od", "dab", "marker", "flags"];
const LEAST = 2.5; // px of the screen, whatever the cell's size; larger ones are a little smaller than their cell

/** Return what draws points on a canvas; by its 2D context where there is no WebGL2. */
export function pointsOn(canvas, about) {
  const gl = canvas.getContext("webgl2", { premultipliedAlpha: true, antialias: false });
  return gl ? new WebGlPoints(gl, about) : new PlainPoints(canvas, about);
}

class WebGlPoints {
  constructor(gl, about) {
    this.gl = gl;
    this.kind = "webgl2";
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    this.program = program;
    this.at = (name) => gl.getUniformLocation(program, name);
    const colour = (rgb) => rgb.map((value) => value / 255);
    gl.uniform3fv(this.at("colours"), about.strengths.flatMap(colour));
    gl.uniform3fv(this.at("positiveColour"), colour(about.positive));
    gl.uniform3fv(this.at("negativeColour"), colour(about.negative));
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.buffers = [];
  }

  load(cells) {
    this.cells = cells;
    this.isUploaded = false;
  }

  /** Give the cells to WebGL; from afar they are not needed there. */
  upload() {
    const { gl, cells } = this;
    for (const buffer of this.buffers) gl.deleteBuffer(buffer);
    this.buffers = COLUMNS.map((name) => {
      const buffer = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, cells[name], gl.STATIC_DRAW);
      const place = gl.getAttribLocation(this.program, name);
      gl.enableVertexAttribArray(place);
      const type = cells[name].BYTES_PER_ELEMENT === 1 ? gl.UNSIGNED_BYTE : gl.UNSIGNED_SHORT;
      gl.vertexAttribIPointer(place, 1, type, 0, 0);
      return buffer;
    });
    gl.uniform1f(this.at("part"), cells.part);
    this.isUploaded = true;
  }

  clear() {
    const { gl } = this;
    gl.viewport(0, 0, gl.canvas.width, gl.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
  }

  /** Draw ranges of cells: tiles as [column, row, first, last]; `view` says where level-0 px lie. */
  draw(tiles, view, limits, byStrength) {
    const { gl, cells } = this;
    if (!this.isUploaded) this.upload();
    this.clear();
    const { width, height } = gl.canvas;
    const { a, b, c, d } = view.matrix;
    gl.uniformMatrix2fv(this.at("turn"), false, [(2 * a) / width, (-2 * b) / height, (2 * c) / width, (-2 * d) / height]);
    gl.uniform2f(this.at("sizes"), view.scale, LEAST * view.ratio);
    gl.uniform1f(this.at("below"), limits.below);
    gl.uniform1f(this.at("above"), limits.above);
    gl.uniform1f(this.at("markerFrom"), limits.marker);
    gl.uniform1f(this.at("odLow"), limits.odLow);
    gl.uniform1f(this.at("odHigh"), limits.odHigh);
    gl.uniform3fv(this.at("steps"), limits.steps);
    gl.uniform1i(this.at("byStrength"), byStrength ? 1 : 0);
    const origin = this.at("origin");
    for (const [column, row, first, last] of tiles) {
      gl.uniform2f(origin, column * cells.tileSide - view.middle.x, row * cells.tileSide - view.middle.y);
      gl.drawArrays(gl.POINTS, first, last - first);
    }
  }
}

class PlainPoints {
  constructor(canvas, about) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.kind = "2d";
    this.colours = [about.negative, about.positive, ...about.strengths].map((rgb) => `rgb(${rgb})`);
  }

  load(cells) {
    this.cells = cells;
  }

  clear() {
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  draw(tiles, view, limits, byStrength) {
    this.clear();
    const { context, cells } = this;
    const { a, b, c, d } = view.matrix;
    const { width, height } = this.canvas;
    for (const [column, row, first, last] of tiles) {
      const left = column * cells.tileSide - view.middle.x;
      const top = row * cells.tileSide - view.middle.y;
      for (let n = first; n < last; n += 1) {
        const call = callOf(limits, cells.area[n], cells.od[n], cells.dab[n], cells.marker[n], cells.flags[n]);
        if (call < 0) continue;
        const x = left + cells.x[n] / cells.part;
        const y = top + cells.y[n] / cells.part;
        const size = Math.max(LEAST * view.ratio, 0.8 * Math.sqrt(cells.area[n]) * view.scale);
        context.fillStyle = this.colours[byStrength ? 2 + (call & 3) : call >> 2];
        context.fillRect(width / 2 + a * x + c * y - size / 2, height / 2 + b * x + d * y - size / 2, size, size);
      }
    }
  }
}
