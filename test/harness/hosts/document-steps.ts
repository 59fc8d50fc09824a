import { readFileSync } from 'node:fs'
import { parse } from 'smol-toml'

// The commands and settings of a document, for tests that follow it.

type Block = { readonly language: string; readonly text: string }
export type Section = { readonly name: string; readonly text: string; readonly blocks: readonly Block[] }

/** A section of a document by its heading, with its code blocks in order. */
export function sectionOfDocument(name: string, heading: string): Section {
  const whole = readFileSync(new URL(`../../../docs/${name}.md`, import.meta.url), 'utf8')
  const text = whole.split(/^## /m).find(each => each.startsWith(`${heading}\n`))
  if (text === undefined) throw new Error(`${name}: there is no section ${heading}`)
  const blocks = [...text.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language = '', block = '']) => ({
    language,
    text: block,
  }))
  return { name: `${name}, ${heading}`, text, blocks }
}

/** The only code block of a section that meets the condition. */
export function blockOf({ name, blocks }: Section, language: string, marker: string): string {
  const [found, ...others] = blocks.filter(block => block.language === language && block.text.includes(marker))
  if (found === undefined || others.length > 0)
    throw new Error(`${name}: ${found === undefined ? 0 : 1 + others.length} blocks of "${language}" with ${marker}`)
  return found.text
}

/** A command in a sentence of the section, between backticks. */
export function commandIn({ name, text }: Section, pattern: RegExp): string {
  const found = [...text.matchAll(/`([^`\n]+)`/g)].map(([, words = '']) => words).filter(words => pattern.test(words))
  const [first] = found
  if (first === undefined || new Set(found).size !== 1)
    throw new Error(`${name}: ${found.length} commands like ${pattern}`)
  return first
}

/** The text of a settings file, with the settings of `lines` in place of the former ones. */
export function withSettings(file: string, lines: string): string {
  let text = file
  for (const part of partsOf(lines)) {
    const [header = ''] = /^\[.*\]\n/.exec(part) ?? []
    const added = part.slice(header.length)
    const names = Object.keys(parse(added))
    text = partsOf(text)
      .map(each => {
        if (!each.startsWith(header) || (header === '' && each.startsWith('['))) return each
        const rest = names.reduce((kept, name) => kept.replace(new RegExp(`^${name} = .*\\n`, 'm'), ''), each)
        return `${header}${added}${rest.slice(header.length)}`
      })
      .join('')
  }
  return text
}

/** The lines before the first table of a TOML text, and each table. */
const partsOf = (toml: string): readonly string[] => toml.split(/^(?=\[)/m)
