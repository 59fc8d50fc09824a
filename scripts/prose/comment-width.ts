import { globSync, statSync } from 'node:fs'
import { commentLines } from './read-prose.ts'

/** Columns of a line with a comment, the indentation included. */
const MAX_COLUMNS = 100

const FILES = ['*.ts', '{.ci,bench,bin,deploy,scripts,sql,src,test}/**/*']

/** Characters with which a comment begins. */
export type Marker = '//' | '/*' | '#' | '--' | ';;'

/** Marker of a comment by file extension. Files without an extension resemble shell scripts. */
const MARKERS: Readonly<Record<string, Marker>> = {
  c: '/*',
  cnf: '#',
  conf: '#',
  mjs: '//',
  path: '#',
  py: '#',
  service: '#',
  sh: '#',
  socket: '#',
  sql: '--',
  target: '#',
  timer: '#',
  toml: '#',
  ts: '//',
  wat: ';;',
  yaml: '#',
  yml: '#',
  '': '#',
}

/** Marker of the comments of a file; undefined if its kind is unknown. */
export const markerOf = (path: string): Marker | undefined => MARKERS[/\.([a-z]+)$/.exec(path)?.[1] ?? '']

/** Paths of the files whose comments are wrapped, in order. */
export const commentedFiles = (root: string): string[] =>
  globSync(FILES, { cwd: root, exclude: ['bench/results/**', '**/node_modules/**'] })
    .filter(path => markerOf(path) !== undefined && statSync(`${root}${path}`).isFile())
    .sort()

/** A directive for a tool must stay on one line. */
const DIRECTIVE = /(?:\/\/|\/\*|#) ?(?:biome-ignore|@ts-|v8 ignore|shellcheck|yaml-language-server|!)/

/** True if a line break can shorten the line: the comment has more than one word. */
const canBeWrapped = (line: string): boolean => /\S \S/.test(line.replace(/^\s*(?:\/\/|\/\*+|\*|#+|--|;;) */, ''))

/**
 * Numbers of the lines, from 1, on which a comment goes beyond 100 columns. A comment in an unknown
 * kind of file has no limit.
 */
export function wideComments(path: string, text: string): number[] {
  const marker = markerOf(path)
  const lines = text.split('\n')
  const wide = [...lines.entries()].filter(([, line]) => [...line].length > MAX_COLUMNS && !DIRECTIVE.test(line))
  if (marker === undefined || wide.length === 0) return []
  const inTypeScript = marker === '//' ? commentLines(text) : undefined
  const isComment = (index: number, line: string): boolean => {
    if (inTypeScript !== undefined) return inTypeScript.has(index + 1)
    if (marker === '/*') return /^\s*(?:\/\*|\*(?:[ /]|$))|\s\/\*\s/.test(line)
    return line.trimStart().startsWith(marker) || line.includes(` ${marker} `)
  }
  return wide.flatMap(([index, line]) => (canBeWrapped(line) && isComment(index, line) ? [index + 1] : []))
}
