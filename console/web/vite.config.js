import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

// The names of the files have no hash: they are committed, and the server sends
// an entity tag with each.
export default defineConfig({
  plugins: [svelte()],
  base: './',
  build: {
    outDir: '../dist',
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: false,
    assetsInlineLimit: 0,
    rollupOptions: {
      output: { entryFileNames: 'console.js', chunkFileNames: '[name].js', assetFileNames: 'console[extname]' },
    },
  },
})
